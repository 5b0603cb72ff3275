//! Several devices that all change one share: each talks to those that it can reach, also while the owner is away.

use crate::joined::step;
use crate::process::{Process, eventually};
use crate::tree::{Chance, shared_difference};
use crate::world::{Mount, Share, World, take_down};
use farshore::ticket::Ticket;
use farshore_engine::PeerId;
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
        let share = self.world.share_at(&self.folder, &self.address, &[]);
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
        let mut options = vec!["--store", guest.folder.to_str().unwrap()];
        options.extend(if is_hidden { &["--no-listen"][..] } else { &LISTENING });
        guest.mount = Some(self.world.join_as(guest.name, &mountpoint, &ticket, &options));
    }

    fn stop(&mut self, name: &str) {
        let guest = self.guests.iter_mut().find(|guest| guest.name == name).unwrap();
        guest.mount.take().unwrap().stop();
    }

    /// Kills it, and takes down what it leaves mounted.
    fn kill(&mut self, name: &str) {
        let guest = self.guests.iter_mut().find(|guest| guest.name == name).unwrap();
        let mount = guest.mount.take().unwrap();
        let mountpoint = mount.root().to_owned();
        mount.kill_and_leave();
        take_down(&mountpoint);
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
            Process::run(pin).went_well();
        }
        eventually("the folders are the same", || {
            // The second time, what the last of them brought into the first one has to be in the others as well.
            let pairs = folders.iter().chain(&folders).map(|other| (folders[0], *other));
            pairs.into_iter().try_for_each(|(first, other)| shared_difference(first, other))
        });
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

#[test]
fn a_device_that_joins_later_finds_the_others_by_way_of_the_owner() {
    let Some(mut mesh) = Mesh::new(&["ann", "bob"], &[]) else { return };
    mesh.join("eve", false);
    mesh.all_connected();
    let listed = mesh.world.run("eve", &["peers"]).went_well();
    assert!(["ann", "bob"].iter().all(|name| listed.text().contains(&mesh.id(name))), "{}", listed.text());
    let shown = mesh.world.run("eve", &["status"]).went_well();
    assert!(shown.text().contains("others") && shown.text().contains(&mesh.id("bob")[..12]), "{}", shown.text());
    mesh.stop_owner();
    fs::write(mesh.folder_of("eve").join("from eve"), "eve").unwrap();
    mesh.become_same();
    assert_eq!(text(&mesh.folder_of("bob").join("from eve")), "eve");
    mesh.start_owner();
    mesh.become_same();
    assert_eq!(text(&mesh.folder.join("from eve")), "eve");
}

/// They remember where the others were, and are where they were themselves.
#[test]
fn guests_that_start_again_find_each_other_while_the_owner_is_away() {
    let Some(mut mesh) = Mesh::new(&["ann", "bob"], &[]) else { return };
    fs::write(mesh.folder.join("file"), "file").unwrap();
    mesh.become_same();
    mesh.stop_owner();
    mesh.stop("ann");
    fs::write(mesh.folder_of("ann").join("while away"), "ann").unwrap();
    mesh.start("ann", false);
    mesh.all_connected();
    mesh.become_same();
    for name in ["ann", "bob"] {
        mesh.stop(name);
    }
    fs::remove_file(mesh.folder_of("bob").join("file")).unwrap();
    for name in ["bob", "ann"] {
        mesh.start(name, false);
    }
    mesh.all_connected();
    mesh.become_same();
    assert!(!mesh.folder_of("ann").join("file").exists());
    mesh.start_owner();
    mesh.become_same();
    assert!(!mesh.folder.join("file").exists());
    assert_eq!(text(&mesh.folder.join("while away")), "ann");
}

#[test]
fn of_two_guests_one_has_to_be_reachable() {
    let Some(mut mesh) = Mesh::new(&["ann", "bob"], &["ann"]) else { return };
    assert_eq!(mesh.status("ann")["listening"], Value::Null);
    let seen_by_bob = mesh.status("bob")["others"].clone();
    assert_eq!(seen_by_bob[0]["addresses"], Value::Array(Vec::new()), "it calls back whom it cannot dial");
    mesh.stop_owner();
    fs::write(mesh.folder_of("ann").join("from ann"), "ann").unwrap();
    fs::write(mesh.folder_of("bob").join("from bob"), "bob").unwrap();
    mesh.become_same();
    mesh.start_owner();
    // Those who both cannot be reached hear of each other from the others.
    mesh.join("eve", true);
    eventually("it is named", || mesh.status("eve")["others"].as_array().is_some_and(|others| others.len() == 2));
    assert!(!mesh.connected("eve").contains(&mesh.id("ann")));
    fs::write(mesh.folder_of("eve").join("from eve"), "eve").unwrap();
    mesh.become_same();
    assert_eq!(text(&mesh.folder_of("ann").join("from eve")), "eve");
}

#[test]
fn who_is_revoked_is_hung_up_on_by_everybody_and_stays_outside_also_while_the_owner_is_away() {
    let Some(mut mesh) = Mesh::new(&["ann", "bob", "eve"], &[]) else { return };
    let eve = mesh.id("eve");
    fs::write(mesh.folder.join("known"), "known").unwrap();
    mesh.become_same();
    mesh.world.run("owner", &["peers", "revoke", &eve]).went_well();
    for name in ["ann", "bob"] {
        eventually("it is forgotten", || !mesh.status(name)["others"].to_string().contains(&eve));
    }
    eventually("it is alone", || mesh.connected("eve").is_empty());
    fs::write(mesh.folder_of("ann").join("secret"), "secret").unwrap();
    fs::write(mesh.folder_of("eve").join("unwanted"), "unwanted").unwrap();
    mesh.stop_owner();
    mesh.stop("bob");
    mesh.start("bob", false);
    let outside = mesh.guests.pop().unwrap();
    mesh.all_connected();
    mesh.become_same();
    assert_eq!(text(&mesh.folder_of("bob").join("secret")), "secret");
    assert!(!mesh.folder_of("bob").join("unwanted").exists() && !mesh.folder_of("ann").join("unwanted").exists());
    // It has tried to come back, and was told nothing.
    for name in ["ann", "bob"] {
        let refused = format!("Peer({}) does not let us in any more", &mesh.id(name)[..16]);
        outside.mount.as_ref().unwrap().process().says(&refused);
    }
    assert!(!outside.folder.join("secret").exists());
    mesh.guests.push(outside);
}

#[test]
fn a_member_tells_strangers_nothing_whatever_they_know() {
    let Some(mut mesh) = Mesh::new(&["ann"], &[]) else { return };
    // Who only looks at the share has joined it, and is no member.
    mesh.world.run("friend", &["ls", &mesh.ticket]).went_well();
    let known = Ticket::parse(&mesh.ticket).unwrap();
    let address = mesh.status("ann")["listening"].as_str().unwrap().to_owned();
    let ann = PeerId(hex(&mesh.id("ann")));
    let forged = Ticket::new(known.share(), ann, *known.secret(), vec![address]).unwrap();
    for device in ["friend", "stranger"] {
        mesh.world.run(device, &["ls", &forged.encode()]).has_code(2).only_says(&["does not accept this ticket"]);
    }
    mesh.stop("ann");
}

#[test]
fn where_to_listen_is_taken_at_its_word() {
    let Some(mut mesh) = Mesh::new(&["ann"], &[]) else { return };
    let taken = mesh.status("ann")["listening"].as_str().unwrap().to_owned();
    let (mnt, store) = (mesh.world.new_dir("mnt"), mesh.world.new_dir("store"));
    let mount = |more: &[&str]| {
        let mut command = mesh.world.farshore("bob", &["mount", &mesh.ticket, "--store"]);
        command.arg(&store).arg(&mnt).args(more);
        Process::run(command)
    };
    mount(&["--listen", &taken]).has_code(1).only_says(&[&taken, "in use", "--listen"]);
    mount(&["--advertise", "here"]).has_code(2).only_says(&["\"here\" is not an address"]);
    assert_eq!(mount(&["--no-listen", "--listen", &taken]).status.code(), Some(2));
    mesh.stop("ann");
}

/// What each of them does in its folder while others come and go. In the end all have the same, and what nobody has touched again
/// is there.
#[test]
fn whatever_all_do_while_they_come_and_go_in_the_end_they_have_the_same() {
    const NAMES: [&str; 3] = ["ann", "bob", "eve"];
    let Some(mut mesh) = Mesh::new(&NAMES, &["eve"]) else { return };
    for round in 0..5_u64 {
        match round {
            1 => mesh.stop_owner(),
            2 => mesh.kill("ann"),
            3 => {
                mesh.start("ann", false);
                mesh.stop("eve");
            }
            4 => {
                mesh.start_owner();
                mesh.kill("bob");
                mesh.start("eve", true);
            }
            _ => {}
        }
        let folders = [&mesh.folder].into_iter().chain(mesh.guests.iter().map(|guest| &guest.folder));
        std::thread::scope(|scope| {
            for (number, folder) in folders.enumerate() {
                scope.spawn(move || {
                    let mut chance = Chance::new(round * 10 + number as u64);
                    fs::write(folder.join(format!("kept {number} {round}")), format!("{number} {round}")).unwrap();
                    (0..40).for_each(|_| _ = step(folder, &mut chance));
                });
            }
        });
    }
    mesh.start("bob", false);
    mesh.all_connected();
    mesh.become_same();
    for (number, round) in (0..4).flat_map(|number| (0..5).map(move |round| (number, round))) {
        assert_eq!(text(&mesh.folder.join(format!("kept {number} {round}"))), format!("{number} {round}"));
    }
}

fn hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}
