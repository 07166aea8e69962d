//! Join, update, tags, leave, rejoin, close.

use std::time::Duration;

use group_redis::{ErrorKind, LeaveCause, OnConflict, State};

use crate::support::{Fixture, PATIENCE, Recorder, Told};

#[tokio::test]
async fn watcher_sees_join_update_and_leave() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);

    let me = group.join("a").metadata(&("10.0.0.7", 80)).tag("blue").await.unwrap();
    assert!(group.members().contains("a"), "who joined sees itself at once");
    seen.wait_for_names(&["a"]).await;
    let member = watcher.member("a").unwrap();
    assert_eq!(member.metadata::<(String, u16)>().unwrap(), ("10.0.0.7".into(), 80));
    assert_eq!(member.tags().collect::<Vec<_>>(), ["blue"]);
    assert_eq!(Some(member.incarnation()), me.incarnation());

    me.update(&"busy").await.unwrap();
    me.add_tags(["green", "red"]).await.unwrap();
    me.remove_tags(["blue"]).await.unwrap();
    let view = watcher.wait_for(PATIENCE, |view| view.with_tag("blue").count() == 0).await.unwrap();
    let member = view.get("a").unwrap();
    assert_eq!(member.metadata::<String>().unwrap(), "busy");
    assert_eq!(member.tags().collect::<Vec<_>>(), ["green", "red"]);
    assert_eq!(group.member("a").as_ref(), Some(member), "who changed it knows the same");

    assert!(me.leave().await.unwrap());
    assert!(!group.members().contains("a"), "who left sees it at once");
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("a")), Some(LeaveCause::Left));
    assert!(!group.leave("a").await.unwrap(), "left twice");
}

#[tokio::test]
async fn members_are_in_order_of_seniority() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    for name in ["c", "a", "b"] {
        group.join(name).await.unwrap();
    }
    let view = group.members();
    assert_eq!(view.iter().map(|member| member.id().as_str()).collect::<Vec<_>>(), ["c", "a", "b"]);
    assert_eq!(view.oldest().unwrap().id(), &"c");
    assert_eq!((view.len(), view.state()), (3, State::Connected));
    assert_eq!(view.revision(), view.get("b").unwrap().revision());
    assert!(view.iter().is_sorted_by_key(|member| member.incarnation()));
}

#[tokio::test]
async fn dropped_handle_stays_dropped_connector_leaves() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    drop(group.join("a").await.unwrap());
    seen.wait_for_names(&["a"]).await;
    assert!(watcher.sync().await.unwrap().contains("a"));

    drop(group);
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("a")), Some(LeaveCause::Left));
}

#[tokio::test]
async fn close_gives_back_and_ends_streams() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    let me = group.join("a").await.unwrap();
    group.join("b").await.unwrap();
    seen.wait_for_names(&["a", "b"]).await;
    let mut events = group.events();

    group.close().await.unwrap();
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("b")), Some(LeaveCause::Left));
    while events.next().await.is_some() {}
    assert_eq!(group.state().get(), State::Closed);
    assert_eq!(me.lost().await, LeaveCause::Left);
    group.close().await.unwrap();

    for error in [
        group.join("c").await.unwrap_err(),
        group.sync().await.unwrap_err(),
        group.leave("a").await.unwrap_err(),
        me.update(&1).await.unwrap_err(),
        group.wait_for(PATIENCE, |_| false).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    }
    // Only the revision stays, and the last word of the session and a place among the probers and the asking for it for a few seconds;
    // and the watcher goes on planting its canary.
    let mut keys: Vec<String> =
        redis::cmd("KEYS").arg(fixture.key("*")).query_async(&mut fixture.connection().await).await.unwrap();
    keys.retain(|key| {
        !key.contains("/leases/")
            && !key.ends_with("/probers")
            && !key.ends_with("/asks")
            && !key.contains("/canaries/")
    });
    assert_eq!(keys, [fixture.key("revision")]);
}

#[tokio::test]
async fn second_join_is_refused_rejoin_is_new() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let first = group.join("a").await.unwrap();
    assert_eq!(group.join("a").await.unwrap_err().kind(), ErrorKind::AlreadyJoined);
    let before = first.incarnation().unwrap();
    assert_eq!(first.rejoin().await.unwrap(), before, "rejoining while held changes nothing");
    first.leave().await.unwrap();
    let second = group.join("a").await.unwrap();
    assert!(second.incarnation().unwrap() > before);
}

/// A name is taken over and the one who had it is told.
#[tokio::test]
async fn taken_over_member_is_told() {
    let fixture = Fixture::new().await;
    let (watcher, old, new) = (fixture.connect().await, fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    let first = old.join("a").await.unwrap();
    seen.wait_for_names(&["a"]).await;
    let second = new.join("a").await.unwrap();
    assert_eq!(first.lost().await, LeaveCause::Replaced);
    assert!(!first.is_held() && second.is_held());
    seen.wait_until("the second incarnation", |record| {
        record.members.get("a").map(|member| member.incarnation()) == second.incarnation()
    })
    .await;
    assert_eq!(seen.read(|record| record.left("a")), Some(LeaveCause::Replaced));
    assert_eq!(first.update(&1).await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(!first.leave().await.unwrap(), "there is nothing left to leave");
    assert!(watcher.sync().await.unwrap().contains("a"));
}

/// A name that is taken can be refused and is free after a leave.
#[tokio::test]
async fn taken_name_is_free_after_leave() {
    let fixture = Fixture::new().await;
    let first = fixture.connect().await;
    let second = fixture.builder().on_conflict(OnConflict::Reject).connect().await.unwrap();
    let me = first.join("a").await.unwrap();
    let error = second.join("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("process "), "it says who: {error}");
    assert!(me.is_held());
    me.leave().await.unwrap();
    second.join("a").await.unwrap();
}

/// The group seen late is the same as seen from the start.
#[tokio::test]
async fn late_watcher_sees_the_same_group() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    for name in ["a", "b", "c"] {
        group.join(name).text(name).await.unwrap();
    }
    group.leave("b").await.unwrap();
    let late = fixture.connect().await;
    let (early, late) = (group.members(), late.members());
    assert_eq!(early.iter().collect::<Vec<_>>(), late.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn without_a_name_the_host_joins() {
    let fixture = Fixture::new().await;
    let group = fixture.connect().await;
    let me = group.join_as_host().await.unwrap();
    let host = gethostname::gethostname();
    assert_eq!(me.id().as_str(), host.to_string_lossy());
}

#[tokio::test]
async fn the_shape_of_the_original_tells_names() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let mut changes = watcher.events().member_changes();
    let mut next = async || {
        let change = tokio::time::timeout(PATIENCE, changes.next()).await.unwrap().unwrap();
        let names = |set: &std::collections::BTreeSet<group_redis::MemberId>| {
            set.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        (names(&change.joined), names(&change.left))
    };
    group.join("abc").await.unwrap();
    assert_eq!(next().await, ("abc".into(), String::new()));
    group.leave("abc").await.unwrap();
    assert_eq!(next().await, (String::new(), "abc".into()));
}

/// Two groups of which one is a prefix of the other do not meet.
#[tokio::test]
async fn group_with_a_prefix_name_is_apart() {
    let fixture = Fixture::new().await;
    let short = fixture.builder().group("g").connect().await.unwrap();
    let long = fixture.builder().group("g2").connect().await.unwrap();
    let spaced = fixture.builder().namespace("ns").group("g").connect().await.unwrap();
    short.join("a").await.unwrap();
    long.join("b").await.unwrap();
    spaced.join("c").await.unwrap();
    for (group, name) in [(&short, "a"), (&long, "b"), (&spaced, "c")] {
        let view = group.sync().await.unwrap();
        assert_eq!(view.iter().map(|member| member.id().to_string()).collect::<Vec<_>>(), [name]);
    }
    for group in [short, long, spaced] {
        group.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_member_of_another_program_is_adopted() {
    let fixture = Fixture::new().await;
    let watcher = fixture.connect().await;
    let seen = Recorder::new(&watcher);
    let mut connection = fixture.connection().await;
    let key = fixture.key("members/shell");
    let mut set = async |text: &str, ms: u64| {
        redis::cmd("SET").arg(&key).arg(text).arg("PX").arg(ms).query_async::<()>(&mut connection).await.unwrap();
    };
    set("hello", 600).await;
    seen.wait_for_names(&["shell"]).await;
    let first = watcher.member("shell").unwrap();
    assert!(first.is_adopted());
    assert_eq!(first.text(), Some("hello"));

    // Renewed, it stays the same member; changed, it is updated.
    set("hello", 600).await;
    set("world", 600).await;
    seen.wait_until("the new text", |record| record.members["shell"].text() == Some("world")).await;
    assert_eq!(watcher.member("shell").unwrap().incarnation(), first.incarnation());
    assert!(fixture.connect().await.members().contains("shell"), "a late watcher sees it too");

    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("shell")), Some(LeaveCause::Expired));

    set("again", 60_000).await;
    seen.wait_for_names(&["shell"]).await;
    assert!(watcher.member("shell").unwrap().incarnation() > first.incarnation());
    redis::cmd("DEL")
        .arg(fixture.key("members/shell"))
        .query_async::<()>(&mut fixture.connection().await)
        .await
        .unwrap();
    seen.wait_for_names(&[]).await;
    assert_eq!(seen.read(|record| record.left("shell")), Some(LeaveCause::Left));
}

#[tokio::test]
async fn dropped_join_leaves_nobody() {
    let fixture = Fixture::new().await;
    let (watcher, group) = (fixture.connect().await, fixture.connect().await);
    let seen = Recorder::new(&watcher);
    group.join("anchor").await.unwrap();
    // Dropped after each number of polls it takes, from before anything was sent to just before the answer.
    for polls in 0..6 {
        let name = format!("dropped-{polls}");
        let mut join = tokio::spawn(std::future::IntoFuture::into_future(group.join(&name)));
        for _ in 0..polls {
            if tokio::time::timeout(Duration::from_micros(150), &mut join).await.is_ok() {
                break;
            }
        }
        join.abort();
        // Where it was answered all the same, it is a membership like any other.
        let joined = join.is_finished();
        group.sync().await.unwrap();
        if joined {
            group.leave(&name).await.unwrap();
        }
    }
    seen.wait_until("nobody but the anchor", |record| record.names() == ["anchor"]).await;
    assert_eq!(watcher.sync().await.unwrap().len(), 1);
    let told = seen.read(|record| record.told.iter().filter(|(_, told)| matches!(told, Told::Snapshot(_))).count());
    assert_eq!(told, 1, "the first snapshot is the only one");
}
