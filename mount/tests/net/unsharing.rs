//! Folders of which not everything is offered: real ones, shared as `farshore share` does it.

use crate::owner::name;
use crate::table::until;
use farshore::folder::WhileWritten;
use farshore::sharing::{ShareOptions, Sharing};
use farshore::state::{State, StateError};
use farshore_engine::{Errno, Ino, Request};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder that is shared, with a directory `d` that holds `d/e/a`, and a file `b`.
struct Place {
    dir: TempDir,
    sharing: Option<Sharing>,
}

impl Place {
    async fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("folder/d/e")).unwrap();
        fs::write(dir.path().join("folder/d/e/a"), "a").unwrap();
        fs::write(dir.path().join("folder/b"), "b").unwrap();
        let mut place = Place { dir, sharing: None };
        place.start().await;
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("folder").join(path)
    }

    fn state(&self) -> State {
        State::open(Some(self.dir.path().join("state"))).unwrap()
    }

    async fn start(&mut self) {
        let options = ShareOptions {
            folder: self.at(""),
            listen: "127.0.0.1:0".into(),
            advertise: Vec::new(),
            new_ticket: false,
            while_written: WhileWritten::default(),
            writable: false,
        };
        self.sharing = Some(Sharing::start(self.state(), options).await.unwrap());
    }

    async fn stop(&mut self) {
        self.sharing.take().unwrap().stop().await;
    }

    fn sharing(&self) -> &Sharing {
        self.sharing.as_ref().unwrap()
    }

    /// What readers see.
    fn shown(&self) -> Vec<String> {
        let tree = |view: farshore_engine::View<'_>| view.tree().map(|(path, _)| path.to_string()).collect();
        let mut shown: Vec<String> = self.sharing().node().view(tree);
        shown.sort();
        shown
    }

    /// Waits until readers see exactly this.
    async fn shows(&self, expected: &[&str]) {
        until(&format!("{expected:?} is shown"), || self.shown() == expected).await;
    }
}

#[tokio::test]
async fn it_is_remembered_over_a_restart_and_can_be_taken_back() {
    let mut place = Place::new().await;
    assert_eq!(place.shown(), ["b", "d", "d/e", "d/e/a"]);
    let found = place.sharing().offer().unshare(place.at("d")).await.unwrap();
    assert_eq!(found[0].path, name("d"));
    assert_eq!(place.shown(), ["b"], "at once");
    fs::write(place.at("d/e/new"), "new").unwrap();
    fs::write(place.at("c"), "c").unwrap();
    place.shows(&["b", "c"]).await;
    place.stop().await;
    place.start().await;
    assert_eq!(place.shown(), ["b", "c"]);
    place.sharing().offer().share_again(place.at("d")).await.unwrap();
    place.shows(&["b", "c", "d", "d/e", "d/e/a", "d/e/new"]).await;
    let again = place.sharing().offer().share_again(place.at("d")).await;
    assert!(matches!(again, Err(StateError::NotUnshared { above: None, .. })), "{again:?}");
    place.stop().await;
}

#[tokio::test]
async fn what_another_process_leaves_out_counts_once_that_is_told() {
    let mut place = Place::new().await;
    place.state().unshare(&place.at("b")).unwrap();
    place.sharing().offer().reload().await.unwrap();
    assert_eq!(place.shown(), ["d", "d/e", "d/e/a"]);
    place.state().unshare(&place.at("d/e")).unwrap();
    place.state().share_again(&place.at("b")).unwrap();
    place.sharing().offer().reload().await.unwrap();
    place.shows(&["b", "d"]).await;
    place.stop().await;
}

#[tokio::test]
async fn what_is_renamed_from_there_shows_with_all_that_it_holds() {
    let mut place = Place::new().await;
    place.sharing().offer().unshare(place.at("d")).await.unwrap();
    fs::rename(place.at("d"), place.at("x")).unwrap();
    place.shows(&["b", "x", "x/e", "x/e/a"]).await;
    place.sharing().offer().unshare(place.at("y/e")).await.unwrap();
    fs::rename(place.at("x"), place.at("y")).unwrap();
    place.shows(&["b", "y"]).await;
    fs::rename(place.at("y"), place.at("z")).unwrap();
    place.shows(&["b", "z", "z/e", "z/e/a"]).await;
    fs::rename(place.at("b"), place.at("d")).unwrap();
    place.shows(&["z", "z/e", "z/e/a"]).await;
    place.stop().await;
}

#[tokio::test]
async fn the_owners_own_view_of_the_share_is_that_of_its_readers() {
    let mut place = Place::new().await;
    let look_up = async |place: &Place| {
        let name = name("b").names()[0].clone();
        place.sharing().node().reply(Request::Lookup { parent: Ino::ROOT, name }).await.map(drop)
    };
    assert_eq!(look_up(&place).await, Ok(()));
    place.sharing().offer().unshare(place.at("b")).await.unwrap();
    assert_eq!(look_up(&place).await, Err(Errno::NoEntry));
    assert!(Path::new(&place.at("b")).exists(), "the folder itself is left alone");
    place.stop().await;
}
