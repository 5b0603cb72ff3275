//! The client and the server of `farshore::net`, over a transport in memory and a clock that runs ahead when nothing
//! happens: a minute of waiting takes no time, and nothing depends on how fast the machine is.

mod both_ways;
mod calling_back;
mod fetch;
mod hashes;
mod hello;
mod introducing;
mod lanes;
mod leases;
mod liars;
mod live;
mod locks;
mod loss;
mod memory;
mod observing;
mod owner;
mod resuming;
mod server;
mod table;
mod unsharing;
mod watch;
mod wholes;
