//! The machine by transcripts: what goes in, and exactly what comes out.
//!
//! A transcript is a list of lines. `> ..` goes in, every other line must come out, in that order, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::error::ErrorKind;
use crate::model::{FencingToken, Incarnation, Member, MemberDraft, MemberId, Metadata, Revision, SessionId};
use crate::settings::{EventSource, OnConflict, OnLost};
use crate::wire::{HoldId, ListedHold, ValueRecord as Value};

const TTL: Duration = Duration::from_millis(1000);
const LOST_AFTER: Duration = Duration::from_millis(980);

fn settings(on_lost: OnLost) -> CoreSettings {
    CoreSettings {
        connector: "c".into(),
        ttl: TTL,
        lost_after: LOST_AFTER,
        presence: false,
        reconcile: TTL,
        poll: TTL,
        source: EventSource::Keyspace,
        canary_timeout: Duration::from_millis(500),
        on_conflict: OnConflict::TakeOver,
        on_lost,
        jitter: 0.0,
        sweeps: true,
        settling: Duration::ZERO,
    }
}

/// A machine under a script, with the commands that it has sent.
struct Script {
    machine: Machine,
    now: Duration,
    sent: Vec<(String, Tag)>,
    /// Until when the lease is vouched for.
    until: Moment,
    over: Moment,
}

fn id(name: &str) -> MemberId {
    MemberId::known(name)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// `name@incarnation` or `name@incarnation/revision`, of the session behind a colon or `o` for other.
fn member(text: &str) -> Arc<Member> {
    let (text, session) = text.split_once(':').unwrap_or((text, "o"));
    let (name, rest) = text.split_once('@').unwrap_or_else(|| panic!("{text:?} is no member"));
    let (incarnation, revision) = rest.split_once('/').unwrap_or((rest, rest));
    let (incarnation, revision) = (Incarnation::new(number(incarnation)), Revision::new(number(revision)));
    Arc::new(Member::new(id(name), incarnation, revision, SessionId::new(session), 0, MemberDraft::default()))
}

fn shown(member: &Member) -> String {
    format!("{}@{}/{}", member.id(), member.incarnation(), member.revision())
}

/// How long requests wait that do not say so.
const LIMIT: Duration = Duration::from_millis(3000);

impl Script {
    fn new(on_lost: OnLost) -> Self {
        Self::with(settings(on_lost))
    }

    fn with(settings: CoreSettings) -> Self {
        Self {
            machine: Machine::new(settings),
            now: Duration::from_secs(10),
            sent: Vec::new(),
            until: Moment::ORIGIN,
            over: Moment::ORIGIN,
        }
    }

    fn play(&mut self, line: &str) -> Vec<String> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        let mut limit = LIMIT;
        if let [.., "within", ms] = words[..] {
            limit = Duration::from_millis(number(ms));
            words.truncate(words.len() - 2);
        }
        let now = Moment::from_origin(self.now);
        let input = match words[..] {
            ["link"] => Input::LinkUp,
            ["up"] => {
                let mut said = self.play("link");
                assert_eq!(said.remove(0), "listen Keyspace");
                said.extend(self.play("answer listen"));
                return said;
            }
            ["down"] => {
                self.sent.clear();
                Input::LinkDown
            }
            ["wait", ms] => {
                self.now += Duration::from_millis(number(ms));
                Input::Tick
            }
            ["hear", event, name] => Input::Notices(vec![Notice::Member(id(name), key_event(event))]),
            ["news", ref rest @ ..] => Input::Notices(vec![Notice::News(news(rest))]),
            ["invalid", "canary"] => Input::Notices(vec![Notice::Canary(KeyEvent::Other)]),
            ["invalid", "all"] => Input::Notices(vec![Notice::Everything]),
            ["canary", event] => Input::Notices(vec![Notice::Canary(key_event(event))]),
            ["join", ticket, name] => {
                Input::Request(Ticket(number(ticket)), Request::Join(id(name), MemberDraft::default()), limit)
            }
            ["text", ticket, name, text] => {
                let edit = Edit::Metadata(Metadata::Text(text.into()));
                Input::Request(Ticket(number(ticket)), Request::Edit(id(name), edit), limit)
            }
            ["leave", ticket, name] => Input::Request(Ticket(number(ticket)), Request::Leave(id(name)), limit),
            ["rejoin", ticket, name] => Input::Request(Ticket(number(ticket)), Request::Rejoin(id(name)), limit),
            ["watch"] => Input::Request(Ticket(0), Request::Watch(Topic::Ephemerals), limit),
            ["watch", role] => Input::Request(Ticket(0), Request::Watch(Topic::Leader(role.into())), limit),
            ["touch", event, path] => Input::Notices(vec![Notice::Path(path.into(), key_event(event))]),
            ["open", ticket] => Input::Request(Ticket(number(ticket)), Request::Open, limit),
            ["audit"] => Input::Audit,
            ["unvouched"] => Input::Suspended,
            ["give-back", queue_entry] => Input::GiveBack(hold_id(queue_entry).into()),
            ["sync", ticket] => Input::Request(Ticket(number(ticket)), Request::Sync, limit),
            ["close", ticket] => Input::Request(Ticket(number(ticket)), Request::Close, limit),
            ["unclaimed", name, incarnation] => Input::Unclaimed(id(name), Incarnation::new(number(incarnation))),
            ["beat", session, pulse] => {
                let pulse = match pulse {
                    "alive" => {
                        (self.until, self.over) = (now + LOST_AFTER, now + LOST_AFTER);
                        Pulse::Alive
                    }
                    "lost" => Pulse::Lost,
                    "missed" => Pulse::Missed,
                    "cut" => {
                        self.until = now + Duration::from_millis(100);
                        Pulse::Missed
                    }
                    other => panic!("{other:?}"),
                };
                Input::Beat { session: SessionId::new(session), until: self.until, over: self.over, pulse }
            }
            ["answer", command, ref rest @ ..] => {
                let sent = self.sent.iter().position(|(name, _)| name == command);
                let (_, tag) =
                    self.sent.remove(sent.unwrap_or_else(|| panic!("{command} was not sent: {:?}", self.sent)));
                Input::Reply(tag, reply(command, rest))
            }
            ["late", ref rest @ ..] => {
                Input::Reply(Tag { owner: Owner::Members, number: 0 }, reply(rest[0], &rest[1..]))
            }
            _ => panic!("{line:?} is no input"),
        };
        self.machine.handle_input(Moment::from_origin(self.now), input);
        let mut said = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            said.extend(self.say(output));
        }
        said
    }

    fn say(&mut self, output: Output) -> Option<String> {
        Some(match output {
            Output::Command(tag, command) => {
                let (name, line) = command_line(&command);
                self.sent.push((name, tag));
                line
            }
            Output::Answer(ticket, Ok(answer)) => match answer {
                Answer::Joined(name, incarnation) => format!("answer {} joined {name}@{incarnation}", ticket.0),
                Answer::Watched => return None,
                Answer::Opened => format!("answer {} opened", ticket.0),
                Answer::Held(incarnation) => format!("answer {} held {incarnation}", ticket.0),
                Answer::Left(left) => format!("answer {} left {left}", ticket.0),
                other => format!("answer {} {other:?}", ticket.0),
            },
            Output::Answer(ticket, Err(error)) => {
                let sure = if error.is_unapplied() { "" } else { " perhaps" };
                format!("answer {} {:?}{sure}", ticket.0, error.kind())
            }
            Output::Snapshot(mut members) => {
                members.sort_by_key(|member| member.incarnation());
                format!("snapshot [{}]", members.iter().map(|m| shown(m)).collect::<Vec<_>>().join(" "))
            }
            Output::Changes(changes) => {
                let line = changes.iter().map(|change| match change {
                    Change::Joined(member) => format!("joined {}", shown(member)),
                    Change::Updated { old, new } => format!("updated {} to {}", shown(old), shown(new)),
                    Change::Left { member, cause } => format!("left {} {cause}", shown(member)),
                });
                line.collect::<Vec<_>>().join(", ")
            }
            Output::State(phase) => match phase {
                Phase::Suspended(_) => "state suspended".into(),
                other => format!("state {other:?}").to_lowercase(),
            },
            Output::Standing(name, Standing::Held(incarnation)) => format!("{name} holds {incarnation}"),
            Output::Standing(name, Standing::Suspended(incarnation)) => format!("{name} suspended {incarnation}"),
            Output::Standing(name, Standing::Lost(cause)) => format!("{name} lost {cause}"),
            Output::Standing(name, Standing::Ended(cause)) => format!("{name} ended {cause}"),
            Output::Keep(session, acked) => {
                (self.until, self.over) = (acked + LOST_AFTER, acked + LOST_AFTER);
                format!("keep {session}")
            }
            Output::Release => "release".into(),
            Output::Values(changes) => changes.iter().map(value_change).collect::<Vec<_>>().join(", "),
            Output::Covered(topic) => format!("covered {topic:?}"),
            Output::Suspend => "suspend".into(),
            Output::Resume => "resume".into(),
            Output::Expire => "expire".into(),
            Output::Audited(_, held) => {
                format!("audited {}", hold_ids(&held.into_iter().map(|one| one.hold_id).collect::<Vec<_>>()))
            }
            Output::Source(report) if report.is_proven => format!("proven {:?}", report.source),
            Output::Source(report) if report.source == EventSource::Poll => "source Poll".into(),
            Output::Source(report) => format!("unproven {:?}", report.source),
            Output::Seen(sessions) => format!("seen {sessions}"),
            Output::Inbox(false) => "no inbox".into(),
            Output::DropLink(error) => format!("drop link {:?}", error.kind()),
            Output::Warn(_) => "warn".into(),
            Output::Closed => "closed".into(),
            Output::Inbox(true) | Output::Confirmed(_) => return None,
        })
    }
}

/// `value@revision` of the session `o`, or a word.
fn value_finding(word: &str) -> ValueFinding {
    match word {
        "deleted" => ValueFinding::Deleted,
        "expired" => ValueFinding::Expired,
        "foreign" => ValueFinding::Foreign,
        "later" => ValueFinding::Later,
        value => {
            let (bytes, revision) = value.split_once('@').unwrap_or_else(|| panic!("{value:?} is no value"));
            let revision = Revision::new(number(revision));
            ValueFinding::Value(Value { session: SessionId::new("o"), revision, bytes: bytes.into() })
        }
    }
}

fn value_change(change: &ValueChange) -> String {
    match change {
        ValueChange::Present { path, value } => match &**value {
            WatchedValue::Value(stored) => format!("{path} = {}", String::from_utf8_lossy(&stored.bytes)),
            WatchedValue::LockRecord(record) => format!("{path} held by {}", record.member),
        },
        ValueChange::Gone { path, expired } => format!("{path} {}", if *expired { "expired" } else { "deleted" }),
    }
}

/// `name#nonce` of the session `c-1`.
fn hold_id(text: &str) -> HoldId {
    let (name, nonce) = text.split_once('#').unwrap_or_else(|| panic!("{text:?} is no hold"));
    HoldId { session: SessionId::new("c-1"), nonce: number(nonce), name: name.into(), shared: false }
}

fn listed(text: &str) -> ListedHold {
    ListedHold { hold_id: hold_id(text), token: FencingToken::new(1) }
}

fn hold_ids(hold_ids: &[HoldId]) -> String {
    hold_ids.iter().map(|hold_id| format!("{}#{}", hold_id.name, hold_id.nonce)).collect::<Vec<_>>().join(" ")
}

fn news(words: &[&str]) -> News {
    match words {
        ["joined", record, ms] => {
            News::Present { member: member(record), due: Some(Duration::from_millis(number(ms))) }
        }
        ["updated", record] => News::Present { member: member(record), due: None },
        [cause, gone @ ..] => {
            let cause = if *cause == "left" { LeaveCause::Left } else { LeaveCause::Expired };
            let member = |text: &&str| (member(text).id().clone(), member(text).incarnation());
            News::Gone { cause, members: gone.iter().map(member).collect() }
        }
        [] => panic!("no news"),
    }
}

fn key_event(event: &str) -> KeyEvent {
    match event {
        "set" => KeyEvent::Set,
        "del" => KeyEvent::Deleted,
        "expired" => KeyEvent::Expired,
        "evicted" => KeyEvent::Evicted,
        "expire" => KeyEvent::Expire,
        other => panic!("{other:?}"),
    }
}

/// The name by which a command is answered, and the line it is shown as.
fn command_line(command: &Command) -> (String, String) {
    let names = |ids: &[MemberId]| ids.iter().map(MemberId::as_str).collect::<Vec<_>>().join(" ");
    let line = match command {
        Command::Join { id, session, opening, contest, nonce, .. } => {
            let how = if *opening { "opening" } else { "in" };
            format!("join {id} {how} {session} {contest:?} nonce {nonce}").to_lowercase()
        }
        Command::Update { id, incarnation, nonce, draft, .. } => {
            format!("update {id}@{incarnation} {} nonce {nonce}", draft.metadata.as_str().unwrap_or("-"))
        }
        Command::Leave { id, incarnation, .. } => {
            format!("leave {id}@{}", incarnation.map_or("any".into(), |at| at.to_string()))
        }
        Command::Close { session } => format!("close {session}"),
        Command::Renew { session, ids } => format!("renew {session} {}", names(ids)),
        Command::Subscribe { topic } => format!("subscribe {topic:?}"),
        Command::ReadValues { paths } => {
            let known = |session: &Option<SessionId>| session.as_ref().map(|s| format!("({s})")).unwrap_or_default();
            let paths = paths.iter().map(|(path, session)| format!("{path}{}", known(session)));
            format!("read_values {}", paths.collect::<Vec<_>>().join(" "))
        }
        Command::ListValues { known, after } => {
            let known = known.map_or("all".into(), |known| format!("since {} {}", known.count, known.revision));
            format!("list_values {}", after.map_or(known, |after| format!("after {after}")))
        }
        Command::Open { session } => format!("open {session}"),
        Command::Extend { session, cursor } => format!("extend {session} from {cursor}"),
        Command::Release { queue_entry } => format!("release {}", hold_ids(std::slice::from_ref(&queue_entry.hold_id))),
        Command::Sweep => "sweep".into(),
        Command::Touch { ids } => format!("touch {}", names(ids)),
        Command::List { known, after } => {
            let known = known.map_or("all".into(), |known| format!("since {} {}", known.revision, known.count));
            format!("list {}", after.map_or(known, |after| format!("after {after}")))
        }
        Command::Read { wanted } => {
            format!("read {}", names(&wanted.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>()))
        }
        Command::PlantCanary => "plant".into(),
        Command::TouchCanary => "touch_canary".into(),
        Command::AskToProbe { .. } => "ask".into(),
        Command::Probe { sessions } => {
            format!("probe {}", sessions.iter().map(SessionId::as_str).collect::<Vec<_>>().join(" "))
        }
        Command::CheckProbers { probers } => format!("check {}", probers.join(" ")),
        Command::Shorten { sessions } => {
            let gone = sessions.iter().map(|(session, absent)| match absent {
                Some(absent) => format!("{session}:{}", absent.as_millis()),
                None => format!("{session}:never"),
            });
            format!("shorten {}", gone.collect::<Vec<_>>().join(" "))
        }
        Command::Listen { source } => format!("listen {source:?}"),
    };
    (line.split(' ').next().unwrap_or_default().to_owned(), line)
}

/// What the server answers: `due` is left out throughout.
fn reply(command: &str, words: &[&str]) -> Result<Reply, Error> {
    match words {
        ["broken"] => return Err(Error::uncertain(ErrorKind::Connection, "broken")),
        ["full"] => return Err(Error::new(ErrorKind::OutOfMemory, "full")),
        ["unchecked"] => return Err(Error::new(ErrorKind::Notifications, "a flag is missing")),
        ["refused"] => return Err(Error::new(ErrorKind::ForeignValue, "refused")),
        _ => {}
    }
    Ok(match (command, words) {
        ("join" | "update" | "open", ["lost"]) => Reply::Lost,
        ("join", ["taken"]) => Reply::Conflict { holder: "another".into() },
        ("join", [at]) => Reply::Joined {
            incarnation: Incarnation::new(number(at)),
            revision: Revision::new(number(at)),
            joined_at_ms: 0,
        },
        ("update", [at]) => Reply::Updated { revision: Revision::new(number(at)) },
        ("leave", [left]) => Reply::Left(*left == "true"),
        ("close", [remaining]) => Reply::Closed { remaining: number(remaining) },
        ("read_values", found) => {
            Reply::ValuesFound { due: None, findings: found.iter().map(|word| value_finding(word)).collect() }
        }
        ("list_values", ["same"]) => Reply::ValuesUnchanged { due: None },
        ("list_values", [count, highest, entries @ ..]) => {
            let after = entries.last().and_then(|last| last.strip_prefix("..")).map(number);
            let entries = entries.iter().filter_map(|entry| entry.split_once('@'));
            let entries = entries.map(|(path, revision)| (path.to_owned(), number(revision))).collect();
            let known = Known { revision: Revision::new(number(highest)), count: number(count) };
            Reply::ValuesListed { due: None, known, after, entries }
        }
        ("open", _) => Reply::Opened,
        ("ask", ["no", asks, probers @ ..]) => {
            let probers = probers.iter().map(|prober| (*prober).to_owned()).collect();
            Reply::NotProbing { asks: number(asks), probers }
        }
        ("ask", sessions) => {
            Reply::Probing { sessions: sessions.iter().map(|session| SessionId::new(*session)).collect() }
        }
        ("probe" | "check", present) => Reply::Present(present.iter().map(|present| *present == "yes").collect()),
        ("shorten", [ms]) => Reply::Shortened { due: Some(Duration::from_millis(number(ms))) },
        ("listen", inbox_works) => Reply::Listening { inbox_works: *inbox_works != ["deaf"] },
        ("extend", [cursor, held @ ..]) => {
            Reply::Extended { cursor: number(cursor), held: held.iter().map(|held| listed(held)).collect() }
        }
        ("release", [released]) => Reply::Released(*released == "true"),
        ("renew", strangers) => Reply::Renewed { strangers: strangers.iter().map(|name| id(name)).collect() },
        ("sweep", ["more", dying @ ..]) => {
            Reply::Swept { due: None, more: true, dying: dying.iter().map(|name| id(name)).collect() }
        }
        ("sweep", ["due", ms]) => {
            Reply::Swept { due: Some(Duration::from_millis(number(ms))), more: false, dying: vec![] }
        }
        ("sweep", dying) => Reply::Swept { due: None, more: false, dying: dying.iter().map(|name| id(name)).collect() },
        ("list", ["same"]) => Reply::Unchanged { due: None },
        ("list", [revision, entries @ ..]) => {
            let more = entries.last() == Some(&"..");
            let entries: Vec<Entry> = entries
                .iter()
                .filter(|entry| **entry != "..")
                .map(|entry| {
                    let member = member(entry);
                    let written = Written::At(member.revision());
                    Entry { id: member.id().clone(), incarnation: member.incarnation(), written }
                })
                .collect();
            let known = Known { revision: Revision::new(number(revision)), count: entries.len() as u64 };
            Reply::Part { due: None, known, more, entries }
        }
        ("read", ["as-of", revision, found @ ..]) => read(number(revision), found),
        ("read", found) => read(0, found),
        _ => Reply::Done,
    })
}

fn read(as_of: u64, found: &[&str]) -> Reply {
    let findings = found.iter().map(|found| finding(found)).collect();
    Reply::Found { due: None, as_of: Revision::new(as_of), findings }
}

fn finding(word: &str) -> Finding {
    match word {
        "left" => Finding::Left,
        "removed" => Finding::Removed,
        "expired" => Finding::Expired,
        "gone" => Finding::Gone,
        "later" => Finding::Later,
        "strange" => Finding::NoMember("strange".into()),
        record => Finding::Record(member(record)),
    }
}

/// Plays the lines that begin with `>`, and compares what comes out with the lines between them.
fn check_with(on_lost: OnLost, transcript: &str) {
    check_in(Script::new(on_lost), transcript);
}

fn check_in(mut script: Script, transcript: &str) {
    let mut said: Vec<String> = Vec::new();
    let mut played = String::new();
    for line in transcript.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(input) = line.strip_prefix('>') {
            assert!(said.is_empty(), "{played}\nmore came out: {said:?}");
            said = script.play(input);
        } else {
            let next = if said.is_empty() { "nothing".to_owned() } else { said.remove(0) };
            assert_eq!(next, line, "after{played}\nand then {said:?}");
        }
        played = format!("{played}\n  {line}");
    }
    assert!(said.is_empty(), "{played}\nmore came out: {said:?}");
}

fn check(transcript: &str) {
    check_with(OnLost::Rejoin, transcript);
}

/// The link comes up and finds these members; revision 9.
fn live(members: &str, rest: &str) -> String {
    let reading = if members.is_empty() {
        "> answer list 9\nsnapshot []\nstate connected\n".to_owned()
    } else {
        let names = members.split(' ').map(|m| m.split('@').next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
        let shown: Vec<_> = members.split(' ').map(|text| shown(&member(text))).collect();
        let shown = shown.join(" ");
        format!(
            "> answer list 9 {members}\nread {names}\n> answer read {members}\nsnapshot [{shown}]\nstate connected\n"
        )
    };
    format!("> up\nsweep\nplant\nlist all\n> answer sweep\n> answer plant\n{reading}{rest}")
}

mod lease;
mod locks;
mod news;
mod presence;
mod put_right;
mod reading;
mod requests;
mod source;
mod sweeps;
mod timeouts;
mod watch;
