//! Validated settings: the one place that relates ttl, heartbeat, timeouts and margins.

mod credentials;
mod policy;
mod tls;

use std::ops::Deref;
use std::time::Duration;

pub use credentials::Credentials;
pub(crate) use credentials::CredentialsSource;
pub use policy::{EventSource, Heartbeats, Notifications, OnConflict, OnLost, Replication};
pub use tls::Tls;

use crate::error::{Error, ErrorKind};
use crate::model::check_name;
use crate::wire::Keys;

/// The settings as a user gave them, not yet checked.
#[derive(Clone, Debug)]
pub(crate) struct UncheckedSettings {
    pub(crate) group: String,
    pub(crate) namespace: Option<String>,
    pub(crate) ttl: Duration,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) connect_timeout: Duration,
    pub(crate) command_timeout: Duration,
    pub(crate) backoff_cap: Duration,
    pub(crate) reconcile: Option<Duration>,
    pub(crate) poll: Duration,
    pub(crate) presence: bool,
    pub(crate) grace: Duration,
    pub(crate) notifications: Notifications,
    pub(crate) source: EventSource,
    pub(crate) on_conflict: OnConflict,
    pub(crate) on_lost: OnLost,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) stall_tolerance: Duration,
    pub(crate) event_buffer: usize,
    pub(crate) sweeps: bool,
    pub(crate) follow_replica: bool,
    pub(crate) replication: Replication,
}

/// The times that a lease is kept by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaseTiming {
    pub(crate) heartbeat: Duration,
    /// How long after the sending of its last acknowledged heartbeat the lease is vouched for.
    pub(crate) lost_after: Duration,
    /// How long it is vouched for once the connection by which others see it is closed.
    pub(crate) absence: Duration,
    /// How long it is vouched for once this process does not look any more whether that connection is open.
    pub(crate) unattended: Duration,
    /// How long it lives at the least once that connection is closed.
    pub(crate) grace: Duration,
    /// After how long the heartbeats renew what lives by the lease, where the core has not.
    pub(crate) renewal_due: Duration,
    /// How long after its last renewal what lives by the lease can be vouched for.
    pub(crate) unrenewed_after: Duration,
    /// How long the application may make no progress before heartbeats stop.
    pub(crate) stall_tolerance: Duration,
}

/// What the core needs to know of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct CoreSettings {
    /// Unique to this connector: its sessions are named after it.
    pub(crate) connector: String,
    pub(crate) ttl: Duration,
    /// How long after the sending of its last acknowledged heartbeat a lease is held to be lost.
    pub(crate) lost_after: Duration,
    pub(crate) reconcile: Duration,
    /// How often to reconcile where no source announces changes.
    pub(crate) poll: Duration,
    /// Where hints are to come from.
    pub(crate) source: EventSource,
    /// Whether there is presence.
    pub(crate) presence: bool,
    pub(crate) canary_timeout: Duration,
    pub(crate) on_conflict: OnConflict,
    pub(crate) on_lost: OnLost,
    /// Where in the range of each jitter this connector lies: 0 to 1.
    pub(crate) jitter: f64,
    pub(crate) sweeps: bool,
    /// How long a new link is too young to judge a session that was never seen over it. What has made this connector
    /// connect anew, a failover or a slot that moves to and fro, may have cut off that session too.
    pub(crate) settling: Duration,
}

impl Default for UncheckedSettings {
    fn default() -> Self {
        Self {
            group: "default-group".to_owned(),
            namespace: None,
            ttl: Duration::from_millis(7500),
            heartbeat: None,
            connect_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(1),
            reconcile: None,
            poll: Duration::from_millis(500),
            presence: true,
            grace: Duration::from_millis(250),
            notifications: Notifications::default(),
            source: EventSource::default(),
            on_conflict: OnConflict::default(),
            on_lost: OnLost::default(),
            heartbeats: Heartbeats::default(),
            stall_tolerance: Duration::from_secs(30),
            event_buffer: 1024,
            sweeps: true,
            follow_replica: false,
            replication: Replication::default(),
        }
    }
}

const LEAST_SETTLING: Duration = Duration::from_secs(1);

/// Settings that fit each other. Read like the draft they were, with what was left out filled in.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    draft: UncheckedSettings,
    pub(crate) heartbeat: Duration,
    pub(crate) reconcile: Duration,
}

impl Deref for Config {
    type Target = UncheckedSettings;

    fn deref(&self) -> &UncheckedSettings {
        &self.draft
    }
}

impl UncheckedSettings {
    pub(crate) fn validate(self) -> Result<Config, Error> {
        check_name("group", &self.group)?;
        if let Some(namespace) = &self.namespace {
            check_name("namespace", namespace)?;
        }
        within("ttl", self.ttl, Duration::from_millis(200), Duration::from_secs(24 * 60 * 60))?;
        let heartbeat = self.heartbeat.unwrap_or(self.ttl / 3);
        let (least, half) = (Duration::from_millis(20), self.ttl / 2);
        if heartbeat < least || heartbeat >= half {
            return Err(refused(format!(
                "heartbeat is {heartbeat:?}: it must be at least {least:?}, and less than half the ttl, {half:?}, so that \
                 one may be lost; leave it out for a third of the ttl"
            )));
        }
        let hour = Duration::from_secs(60 * 60);
        within("connect_timeout", self.connect_timeout, Duration::from_millis(1), hour)?;
        within("command_timeout", self.command_timeout, Duration::from_millis(1), hour)?;
        within("backoff_cap", self.backoff_cap, Duration::from_millis(10), hour)?;
        let reconcile = self.reconcile.unwrap_or(self.ttl);
        within("reconcile", reconcile, Duration::from_millis(20), Duration::from_secs(24 * 60 * 60))?;
        within("grace", self.grace, Duration::from_millis(50), hour)?;
        within("poll", self.poll, Duration::from_millis(10), hour)?;
        within("stall_tolerance", self.stall_tolerance, Duration::from_millis(100), Duration::MAX)?;
        if let Replication::Ack { replicas, timeout } = self.replication {
            within("the timeout of the replication", timeout, Duration::from_millis(1), hour)?;
            if replicas == 0 {
                return Err(refused(
                    "the replication waits for 0 replicas: use Replication::Async, or at least 1".to_owned(),
                ));
            }
        }
        if !(1..=1 << 20).contains(&self.event_buffer) {
            return Err(refused(format!("event_buffer is {}: it must be 1 to {}", self.event_buffer, 1 << 20)));
        }
        Ok(Config { draft: self, heartbeat, reconcile })
    }
}

/// How long the calls of a handle may wait for the server, or why that is refused.
#[derive(Clone, Debug)]
pub(crate) struct CallTimeout(Result<Duration, Error>);

impl CallTimeout {
    /// As a user gave it: checked before any I/O, by the call.
    pub(crate) fn given(timeout: Duration) -> Self {
        Self(within("timeout", timeout, Duration::from_millis(1), Duration::from_secs(60 * 60)).map(|()| timeout))
    }

    pub(crate) fn limit(&self) -> Result<Duration, Error> {
        self.0.clone()
    }
}

impl From<Duration> for CallTimeout {
    fn from(default: Duration) -> Self {
        Self(Ok(default))
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

fn within(what: &str, value: Duration, least: Duration, most: Duration) -> Result<(), Error> {
    if value < least {
        return Err(refused(format!("{what} is {value:?}: it must be at least {least:?}")));
    }
    if value > most {
        return Err(refused(format!("{what} is {value:?}: it may be {most:?} at the most")));
    }
    Ok(())
}

impl Config {
    pub(crate) fn keys(&self) -> Keys {
        Keys::new(self.namespace.as_deref(), &self.group)
    }

    /// How long a key outlives its last renewal when no connector is left to clean up.
    pub(crate) fn safety(&self) -> Duration {
        self.ttl * 4
    }

    /// After how long heartbeats renew the safety ttl, where the core has not: there is time for more than one try.
    fn renewal_due(&self) -> Duration {
        self.ttl * 5 / 2
    }

    /// How long after the last renewal of the safety ttl what lives by it can be vouched for.
    fn unrenewed_after(&self) -> Duration {
        self.safety() - self.drift_margin()
    }

    /// How long a request may wait for a link and its answer.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.connect_timeout + self.command_timeout
    }

    /// How often to reconcile where no source announces changes.
    pub(crate) fn poll(&self) -> Duration {
        self.poll.min(self.reconcile)
    }

    /// How long the canary may take: twice that, and the source is replaced, within one reconcile interval.
    fn canary_timeout(&self) -> Duration {
        self.command_timeout.min((self.reconcile / 3).max(Duration::from_millis(50)))
    }

    /// How long a session that is not present any more may still live; `None` where that is as long as its lease.
    pub(crate) fn grace(&self) -> Option<Duration> {
        let is_seen = self.presence && self.heartbeats == Heartbeats::Thread;
        Some(self.grace).filter(|grace| is_seen && *grace < self.lost_after())
    }

    /// How long a lease is vouched for once its connection is closed: the server may have closed it a little earlier.
    fn absence(&self) -> Duration {
        self.grace().map_or(self.ttl, |grace| grace / 2)
    }

    /// How long it is vouched for by a process that was frozen, and does not know yet what became of its connection.
    fn unattended(&self) -> Duration {
        self.grace().map_or(self.ttl, |grace| grace * 2 / 3)
    }

    /// How long a call of the heartbeat or a ping may take: after it there must be time for another.
    pub(crate) fn pulse_timeout(&self) -> Duration {
        self.command_timeout.min(self.heartbeat)
    }

    /// What a lease is given less by its holder than by the server, for clocks that run at different speeds.
    fn drift_margin(&self) -> Duration {
        (self.ttl / 50).max(Duration::from_millis(5))
    }

    /// How long after the sending of its last acknowledged heartbeat a lease is vouched for.
    pub(crate) fn lost_after(&self) -> Duration {
        self.ttl - self.drift_margin()
    }

    pub(crate) fn lease_timing(&self) -> LeaseTiming {
        LeaseTiming {
            heartbeat: self.heartbeat,
            lost_after: self.lost_after(),
            absence: self.absence(),
            unattended: self.unattended(),
            grace: self.grace().unwrap_or(self.ttl),
            renewal_due: self.renewal_due(),
            unrenewed_after: self.unrenewed_after(),
            stall_tolerance: self.stall_tolerance,
        }
    }

    pub(crate) fn settings(&self, connector: String, jitter: f64) -> CoreSettings {
        CoreSettings {
            connector,
            ttl: self.ttl,
            lost_after: self.lost_after(),
            reconcile: self.reconcile,
            poll: self.poll(),
            source: self.source,
            presence: self.presence,
            canary_timeout: self.canary_timeout(),
            on_conflict: self.on_conflict,
            on_lost: self.on_lost,
            jitter,
            sweeps: self.sweeps,
            settling: (self.grace * 4).max(LEAST_SETTLING).min(self.ttl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut UncheckedSettings)) -> String {
        let mut draft = UncheckedSettings::default();
        change(&mut draft);
        let error = draft.validate().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::InvalidName), "{error:?}");
        error.to_string()
    }

    #[test]
    fn every_refusal_names_the_setting_and_the_reason() {
        let ms = Duration::from_millis;
        for (change, words) in [
            (
                Box::new(|d: &mut UncheckedSettings| d.group.clear()) as Box<dyn FnOnce(&mut UncheckedSettings)>,
                ["group", "empty"],
            ),
            (Box::new(|d| d.group = "g".repeat(513)), ["group", "513"]),
            (Box::new(|d| d.namespace = Some(String::new())), ["namespace", "empty"]),
            (Box::new(move |d| d.ttl = ms(199)), ["ttl", "at least 200ms"]),
            (Box::new(move |d| d.heartbeat = Some(ms(3750))), ["heartbeat", "half the ttl"]),
            (Box::new(move |d| d.heartbeat = Some(ms(1))), ["heartbeat", "at least"]),
            (Box::new(move |d| d.heartbeat = Some(ms(10_000))), ["at least 20ms", "less than half the ttl, 3.75s"]),
            (Box::new(|d| d.connect_timeout = Duration::ZERO), ["connect_timeout", "at least"]),
            (Box::new(|d| d.command_timeout = Duration::ZERO), ["command_timeout", "at least"]),
            (Box::new(|d| d.reconcile = Some(Duration::ZERO)), ["reconcile", "at least"]),
            (Box::new(|d| d.grace = Duration::ZERO), ["grace", "at least"]),
            (Box::new(|d| d.poll = Duration::ZERO), ["poll", "at least"]),
            (Box::new(|d| d.backoff_cap = Duration::ZERO), ["backoff_cap", "at least"]),
            (Box::new(|d| d.stall_tolerance = Duration::ZERO), ["stall_tolerance", "at least"]),
            (Box::new(|d| d.event_buffer = 0), ["event_buffer", "1 to"]),
        ] {
            let message = refusal(change);
            assert!(words.iter().all(|word| message.contains(word)), "{message}");
        }
    }

    #[test]
    fn the_smallest_ttl_is_usable() {
        let config =
            UncheckedSettings { ttl: Duration::from_millis(200), ..UncheckedSettings::default() }.validate().unwrap();
        assert_eq!(config.heartbeat, Duration::from_millis(200) / 3);
        let settings = config.settings("c".into(), 0.0);
        assert!(settings.lost_after > config.heartbeat * 2 && settings.lost_after < config.ttl);
    }
}
