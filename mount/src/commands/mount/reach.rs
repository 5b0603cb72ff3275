//! Whether and where the other devices of a share reach a device that has it in a folder of its own.

use crate::circle::Reach;
use crate::commands::Failure;
use clap::Args;
use farshore_proto::address::{ADDRESSES_MAX, is_address};

#[derive(Debug, Args)]
pub(super) struct ReachArgs {
    /// Where to listen for the other devices of the share, as host:port [default: every address, any port that is free]
    #[arg(long, value_name = "ADDR", conflicts_with = "read_only")]
    listen: Option<String>,
    /// Where they reach this machine, as host:port; may be given several times [default: what this machine knows]
    #[arg(long, value_name = "ADDR", conflicts_with = "read_only")]
    advertise: Vec<String>,
    /// Do not listen: this device calls the others, and they cannot call it
    #[arg(long, conflicts_with_all = ["listen", "advertise"])]
    no_listen: bool,
}

impl ReachArgs {
    pub(super) fn reach(&self) -> Result<Reach, Failure> {
        if let Some(wrong) = self.advertise.iter().find(|address| !is_address(address)) {
            return Err(Failure::usage(format!(
                "{wrong:?} is not an address; an address is host:port, such as nas:7000"
            )));
        }
        if self.advertise.len() > ADDRESSES_MAX {
            return Err(Failure::usage(format!("others are told of at most {ADDRESSES_MAX} addresses")));
        }
        let advertise = self.advertise.clone();
        Ok(match (&self.listen, self.no_listen) {
            (_, true) => Reach::Nowhere,
            (None, false) => Reach::Anywhere { advertise },
            (Some(listen), false) => Reach::At { listen: listen.clone(), advertise },
        })
    }
}
