//! `farshore share`: offers a folder until it is told to stop.

use super::{Failure, stop_signal};
use crate::sharing::{DEFAULT_LISTEN, ShareOptions, Sharing};
use crate::state::State;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct ShareArgs {
    /// The folder to offer, in place
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Where to listen, as host:port
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_LISTEN)]
    listen: String,
    /// Where others reach this machine, as host:port; may be given several times [default: what this machine knows]
    #[arg(long, value_name = "ADDR")]
    advertise: Vec<String>,
    /// Others may only read. This version offers nothing else
    #[arg(long)]
    read_only: bool,
    /// Make all earlier tickets of this folder worthless, and forget the devices that joined with them
    #[arg(long)]
    new_ticket: bool,
}

pub(super) async fn run(state: Option<PathBuf>, args: ShareArgs) -> Result<(), Failure> {
    let ShareArgs { folder, listen, advertise, read_only: _, new_ticket } = args;
    let options = ShareOptions { folder, listen, advertise, new_ticket };
    // From the first moment: a stop during the first scan is a stop too.
    let stop = stop_signal();
    tokio::pin!(stop);
    let mut sharing = tokio::select! {
        started = Sharing::start(State::open(state)?, options.clone()) => started?,
        stopped = &mut stop => return Ok(stopped?),
    };
    let entries = sharing.node().view(|view| view.entries()) - 1;
    eprintln!("sharing {} ({entries} entries) at {}; stop with Ctrl-C", options.folder.display(), sharing.address());
    println!("{}", sharing.ticket().encode());
    std::io::stdout().flush()?;
    let result = tokio::select! {
        stopped = stop => stopped.map_err(Failure::from),
        () = sharing.vanished() => {
            Err(Failure::failed(format!("the folder {} is gone; nothing is shared any more", options.folder.display())))
        }
    };
    sharing.stop().await;
    result
}
