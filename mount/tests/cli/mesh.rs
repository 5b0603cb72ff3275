//! Several devices that all change one share: each talks to those that it can reach, also while the owner is away.

use crate::process::eventually;
use crate::tree::shared_difference;
use crate::world::{Mount, Share, World};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Anybody may reach it, at any port.
const LISTENING: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// An owner and its guests, each with a folder of its own.
struct Mesh {
    guests: Vec<Guest>,
    share: Option<Share>,
    ticket: String,
    address: String,
    folder: PathBuf,
    world: World,
}

struct Guest {
    name: &'static str,
    folder: PathBuf,
    mount: Option<Mount>,
}

impl Mesh {
    /// An owner, and guests that know each other. Those of `hidden` do not listen.
    fn new(names: &[&'static str], hidden: &[&str]) -> Option<Mesh> {
        let world = World::with_fuse()?;
        let folder = world.new_dir("folder");
        let (ticket, address) = (String::new(), "127.0.0.1:0".into());
        let mut mesh = Mesh { guests: Vec::new(), share: None, ticket, address, folder, world };
        mesh.start_owner();
        mesh.ticket = mesh.share.as_ref().unwrap().ticket.clone();
        for name in names {
            mesh.join(name, hidden.contains(name));
        }
        mesh.all_connected();
        Some(mesh)
    }

    fn start_owner(&mut self) {
        let share = self.world.share_at(&self.folder, &self.address, &["--writable"]);
        // The same one each time: the guests know it from the ticket.
        self.address = share.address.clone();
        self.share = Some(share);
    }

    fn stop_owner(&mut self) {
        self.share.take().unwrap().process.stop(Signal::INT).went_well();
    }

    fn join(&mut self, name: &'static str, is_hidden: bool) {
        let folder = self.world.new_dir(&format!("folder of {name}"));
        self.guests.push(Guest { name, folder, mount: None });
        self.start(name, is_hidden);
    }

    fn start(&mut self, name: &str, is_hidden: bool) {
        let (mountpoint, ticket) = (self.world.path(&format!("mnt of {name}")), self.ticket.clone());
        let guest = self.guests.iter_mut().find(|guest| guest.name == name).unwrap();
        let mut options = vec!["--writable", "--store", guest.folder.to_str().unwrap()];
        options.extend(if is_hidden { &["--no-listen"][..] } else { &LISTENING });
        guest.mount = Some(self.world.mount_as(guest.name, &mountpoint, &ticket, &options));
    }

    fn stop(&mut self, name: &str) {
        let guest = self.guests.iter_mut().find(|guest| guest.name == name).unwrap();
        guest.mount.take().unwrap().stop();
    }

    fn folder_of(&self, name: &str) -> &Path {
        &self.guests.iter().find(|guest| guest.name == name).unwrap().folder
    }

    fn id(&self, device: &str) -> String {
        self.world.run(device, &["id"]).went_well().text().trim().to_owned()
    }

    /// What the mount of a guest says of itself.
    fn status(&self, name: &str) -> Value {
        let ended = self.world.run(name, &["status", "--json"]).went_well();
        let status: Value = serde_json::from_str(ended.text()).unwrap();
        status["processes"][0]["mount"].clone()
    }

    /// The other guests to which a guest is connected.
    fn connected(&self, name: &str) -> Vec<String> {
        let status = self.status(name);
        let others = status["others"].as_array().unwrap().iter();
        others.filter(|other| other["state"] == "up").map(|other| other["id"].as_str().unwrap().to_owned()).collect()
    }

    fn running(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().filter(|guest| guest.mount.is_some())
    }

    /// Waits until each guest follows every other one.
    #[track_caller]
    fn all_connected(&self) {
        for guest in self.running() {
            let mut others: Vec<_> =
                self.running().filter(|other| other.name != guest.name).map(|other| self.id(other.name)).collect();
            others.sort();
            eventually("it is connected to all others", || match self.connected(guest.name) {
                connected if connected == others => Ok(()),
                connected => Err(format!("{}: {connected:?} of {others:?}", guest.name)),
            });
        }
    }

    /// Waits until all folders whose devices run hold the same.
    #[track_caller]
    fn become_same(&self) {
        let owner = self.share.iter().map(|_| &self.folder);
        let folders: Vec<_> = owner.chain(self.running().map(|guest| &guest.folder)).collect();
        for guest in self.running() {
            // Files come when they are read, and here without being read.
            let mut pin = self.world.farshore(guest.name, &["pin"]);
            pin.arg(guest.mount.as_ref().unwrap().root());
            crate::process::Process::run(pin).went_well();
        }
        for pair in folders.windows(2) {
            eventually("the folders are the same", || shared_difference(pair[0], pair[1]));
        }
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn two_guests_go_on_without_the_owner_who_has_it_all_when_it_is_back() {
    let Some(mut mesh) = Mesh::new(&["ann", "bob"], &[]) else { return };
    fs::write(mesh.folder.join("before"), "before").unwrap();
    mesh.become_same();
    mesh.stop_owner();
    fs::write(mesh.folder_of("ann").join("from ann"), "ann").unwrap();
    fs::write(mesh.folder_of("bob").join("from bob"), vec![7; 3 << 20]).unwrap();
    fs::rename(mesh.folder_of("bob").join("before"), mesh.folder_of("bob").join("after")).unwrap();
    mesh.become_same();
    assert_eq!(text(&mesh.folder_of("bob").join("from ann")), "ann");
    assert!(mesh.folder_of("ann").join("after").exists() && !mesh.folder_of("ann").join("before").exists());
    mesh.start_owner();
    mesh.become_same();
    assert_eq!(text(&mesh.folder.join("from ann")), "ann");
}
