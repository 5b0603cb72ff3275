//! What goes wrong between hosts and with their processes, and how it is brought about: between the steps of the simulation.

use crate::history::History;
use crate::lots::Lots;
use crate::transport::Line;
use crate::world::{OWNER_HOST, Setup};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Segments that a connection holds: enough that it is not what limits throughput.
const TCP_SEGMENTS: usize = 4096;

/// When the simulated world begins, in seconds since 1970.
pub(crate) const BEGINNING_SECONDS: u64 = 1_700_000_000;

/// What happens to a host, to its network, or to the owner, with whom all others talk.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// What is sent and what is on its way gets lost.
    Partition,
    /// Ends a partition; what was lost stays lost.
    Repair,
    /// What is sent and what is on its way waits.
    Hold,
    /// Everything that waits arrives.
    Release,
    /// Each message breaks the link with this probability, out of a hundred; the next one repairs it with one half.
    Flaky(u64),
    /// Messages take so long from now on.
    Latency(Duration),
    /// The owner's process dies; its system ends the connections.
    Crash,
    /// The owner's machine loses its power: nobody is told.
    PowerCut,
    /// The owner starts again.
    Restart,
    /// The host's process ends, whatever it is doing; its system ends the connections.
    End,
    /// The host's machine loses its power: nobody is told, and its disk keeps only what it has saved.
    CutPower,
    /// The host starts again, unless it runs.
    Start,
}

/// Faults that are to be brought about, and of which host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue(Arc<Mutex<VecDeque<(&'static str, Fault)>>>);

impl Queue {
    fn add(&self, faults: impl IntoIterator<Item = (&'static str, Fault)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(faults);
    }

    fn next(&self) -> Option<(&'static str, Fault)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// The network of one host, and the processes at its two ends.
#[derive(Clone)]
pub struct Net {
    host: &'static str,
    queue: Queue,
    tick: Duration,
    /// How wide the link is.
    pub line: Arc<Line>,
}

impl Net {
    pub(crate) fn new(host: &'static str, queue: Queue, tick: Duration, line: Arc<Line>) -> Net {
        Net { host, queue, tick, line }
    }

    /// The name of the host.
    #[must_use]
    pub fn host(&self) -> &'static str {
        self.host
    }

    /// Brings a fault about. Returns when it has happened.
    pub async fn bring(&self, fault: Fault) {
        self.queue.add([(self.host, fault)]);
        // Faults happen between the steps of the simulation.
        tokio::time::sleep(self.tick * 2).await;
    }

    /// The host's process ends by `end`, and the next one starts at once. To be called by its script, which ends with it.
    pub async fn restart(&self, end: Fault) {
        self.queue.add([(self.host, end), (self.host, Fault::Start)]);
        std::future::pending().await
    }
}

/// What can go wrong with a link for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkTrouble {
    /// What is sent gets lost.
    Partition,
    /// What is sent waits.
    Hold,
    /// Each message breaks the link with this probability, out of a hundred.
    Flaky(u64),
    /// Messages take so much longer.
    Slow(Duration),
    /// Connections carry so many bytes in a millisecond.
    Narrow(u64),
}

/// How a link is when it is well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Well {
    /// The longest that a message travels.
    pub(crate) latency: Duration,
    /// How many bytes a connection carries in a millisecond; zero for no limit.
    pub(crate) bytes_per_ms: u64,
}

impl LinkTrouble {
    /// How many kinds there are.
    pub(crate) const KINDS: u64 = 5;

    /// One of the kind with this number, which counts from zero.
    pub(crate) fn draw(kind: u64, lots: &mut Lots) -> LinkTrouble {
        match kind {
            0 => LinkTrouble::Partition,
            1 => LinkTrouble::Hold,
            2 => LinkTrouble::Flaky(lots.within(1..=10)),
            3 => LinkTrouble::Slow(lots.millis(50..=400)),
            _ => LinkTrouble::Narrow(lots.within(100..=2_000)),
        }
    }

    pub(crate) async fn begin(self, net: &Net, well: Well) {
        match self {
            LinkTrouble::Partition => net.bring(Fault::Partition).await,
            LinkTrouble::Hold => net.bring(Fault::Hold).await,
            LinkTrouble::Flaky(of_hundred) => net.bring(Fault::Flaky(of_hundred)).await,
            LinkTrouble::Slow(more) => net.bring(Fault::Latency(well.latency + more)).await,
            LinkTrouble::Narrow(rate) => net.line.set_bytes_per_ms(rate),
        }
    }

    pub(crate) async fn end(self, net: &Net, well: Well) {
        match self {
            LinkTrouble::Partition | LinkTrouble::Flaky(_) => {
                net.bring(Fault::Flaky(0)).await;
                net.bring(Fault::Repair).await;
            }
            LinkTrouble::Hold => net.bring(Fault::Release).await,
            LinkTrouble::Slow(_) => net.bring(Fault::Latency(well.latency)).await,
            LinkTrouble::Narrow(_) => net.line.set_bytes_per_ms(well.bytes_per_ms),
        }
    }
}

/// A world in which nothing is yet.
pub(crate) fn build(setup: &Setup) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .rng_seed(setup.seed)
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(BEGINNING_SECONDS))
        .tick_duration(setup.tick)
        .simulation_duration(setup.limit)
        .min_message_latency(setup.latency.0)
        .max_message_latency(setup.latency.1)
        .repair_rate(0.5)
        .tcp_capacity(TCP_SEGMENTS)
        .build()
}

/// Who and what is in a world, for the course of it.
pub(crate) struct Course<'a> {
    pub(crate) queue: &'a Queue,
    /// Everybody but the owner.
    pub(crate) others: &'a [&'static str],
    pub(crate) history: &'a History,
    /// The simulated time at which it has failed.
    pub(crate) limit: Duration,
}

impl Course<'_> {
    /// Lets time pass and faults happen until all `have_ended`. `disks` hears of each fault right after it has happened.
    pub(crate) fn run(
        &self,
        sim: &mut turmoil::Sim<'_>,
        disks: impl Fn(&'static str, Fault),
        have_ended: impl Fn() -> bool,
    ) -> Result<(), String> {
        loop {
            self.history.set_now(sim.elapsed());
            while let Some((host, fault)) = self.queue.next() {
                self.history.note(host, format_args!("fault {fault:?}"));
                self.bring(sim, host, fault);
                disks(host, fault);
            }
            sim.step().map_err(|error| error.to_string())?;
            if have_ended() {
                return Ok(());
            }
            if sim.elapsed() > self.limit {
                return Err(format!(
                    "the scripts have not come to their ends within {:?} of simulated time",
                    self.limit
                ));
            }
        }
    }

    fn bring(&self, sim: &mut turmoil::Sim<'_>, host: &'static str, fault: Fault) {
        match fault {
            Fault::Partition => sim.partition(OWNER_HOST, host),
            Fault::Repair => sim.repair(OWNER_HOST, host),
            Fault::Hold => sim.hold(OWNER_HOST, host),
            Fault::Release => sim.release(OWNER_HOST, host),
            Fault::Flaky(of_hundred) => sim.set_link_fail_rate(OWNER_HOST, host, of_hundred as f64 / 100.0),
            Fault::Latency(latency) => sim.set_link_latency(OWNER_HOST, host, latency),
            Fault::Crash => sim.crash(OWNER_HOST),
            Fault::PowerCut => self.cut_power(sim, OWNER_HOST),
            Fault::Restart => sim.bounce(OWNER_HOST),
            Fault::End => sim.crash(host),
            Fault::CutPower => self.cut_power(sim, host),
            Fault::Start => {
                if !sim.is_host_running(host) {
                    sim.bounce(host);
                }
            }
        }
    }

    /// Nobody hears that a process is gone.
    fn cut_power(&self, sim: &mut turmoil::Sim<'_>, host: &'static str) {
        let ends = self.others.iter().copied().filter(|other| host == OWNER_HOST || *other == host);
        let ends: Vec<&str> = ends.collect();
        ends.iter().for_each(|other| sim.partition(OWNER_HOST, *other));
        sim.crash(host);
        ends.iter().for_each(|other| sim.repair(OWNER_HOST, *other));
    }
}
