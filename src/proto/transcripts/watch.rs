//! Values and leaders that are watched.

use super::*;

fn watched(values: &str, rest: &str) -> String {
    let known: Vec<_> = values.split(' ').filter(|value| !value.is_empty()).collect();
    let highest = known.iter().filter_map(|value| value.split('@').nth(1)).next_back().unwrap_or("0");
    let paths: Vec<_> = known.iter().filter_map(|value| value.split('@').next()).collect();
    let reading = if known.is_empty() {
        String::new()
    } else {
        let all: Vec<_> = paths.iter().map(|path| format!("ephemerals/{path}")).collect();
        let shown: Vec<_> = paths.iter().map(|path| format!("ephemerals/{path} = {path}")).collect();
        format!(
            "read_values {}
> answer read_values {}\n{}\n",
            all.join(" "),
            known.join(" "),
            shown.join(", ")
        )
    };
    live(
        "",
        &format!(
            "> watch\nsubscribe Ephemerals\n> answer subscribe yes
list_values all\n\
             > answer list_values {} {highest} {values}\n{reading}covered Ephemerals\n{rest}",
            known.len()
        ),
    )
}

#[test]
fn a_snapshot_comes_after_the_subscription_is_confirmed() {
    check(&watched("", ""));
    check(&watched("a@5 b@7", ""));
}

#[test]
fn nothing_is_asked_until_somebody_watches() {
    check(&live("", "> touch set ephemerals/a\n> touch del locks/elections/boss"));
}

#[test]
fn a_hint_is_read_and_becomes_a_change() {
    check(&watched(
        "a@5",
        "> touch set ephemerals/a
         read_values ephemerals/a(o)
         > touch set ephemerals/b
         > touch expired ephemerals/a
         > answer read_values x@8
         ephemerals/a = x
         read_values ephemerals/b ephemerals/a(o)
         > answer read_values y@9 deleted
         ephemerals/b = y, ephemerals/a expired
         > touch del ephemerals/b
         read_values ephemerals/b(o)
         > answer read_values expired
         ephemerals/b expired
         > touch del ephemerals/b
         read_values ephemerals/b
         > answer read_values deleted",
    ));
}

#[test]
fn what_stays_the_same_is_no_change_and_what_has_no_room_is_asked_again() {
    check(&watched(
        "a@5",
        "> touch set ephemerals/a
         read_values ephemerals/a(o)
         > touch set ephemerals/b
         > touch expire ephemerals/a
         > answer read_values a@5
         read_values ephemerals/b
         > answer read_values later
         read_values ephemerals/b
         > answer read_values y@9
         ephemerals/b = y",
    ));
}

#[test]
fn a_lost_notification_is_found_by_a_listing() {
    check(&watched(
        "a@5 b@7",
        "> canary set
         > canary del
         > canary expired
         proven Keyspace
         > wait 860
         sweep
         plant
         list since 9 0
         list_values since 2 7
         > answer list same
         > answer list_values 2 9 b@7 c@9
         read_values ephemerals/c ephemerals/a(o)
         > answer read_values z@9 deleted
         ephemerals/c = z, ephemerals/a deleted",
    ));
}

#[test]
fn over_a_new_link_everything_is_asked_again_and_what_vanished_is_told() {
    check(&watched(
        "a@5",
        "> touch set ephemerals/a
         read_values ephemerals/a(o)
         > down
         state suspended
         > touch set ephemerals/a
         > up
         sweep
         plant
         list all
         subscribe Ephemerals
         > answer list 9
         snapshot []
         state connected
         > answer subscribe yes
         list_values all
         > answer list_values 0 0
         read_values ephemerals/a(o)
         > answer read_values deleted
         ephemerals/a deleted
         covered Ephemerals",
    ));
}

#[test]
fn what_may_not_be_subscribed_to_is_reconciled_all_the_same() {
    check(&live(
        "",
        "> watch
         subscribe Ephemerals
         > answer subscribe refused
         warn
         list_values all
         > answer list_values 1 5 a@5
         read_values ephemerals/a
         > answer read_values x@5
         ephemerals/a = x
         covered Ephemerals",
    ));
}

#[test]
fn a_leader_is_one_key() {
    check(&live(
        "",
        "> watch elections/boss
         subscribe Leader(\"elections/boss\")
         > answer subscribe yes
         read_values locks/elections/boss
         > answer read_values deleted
         covered Leader(\"elections/boss\")
         > touch set locks/elections/other
         > touch set locks/elections/boss
         read_values locks/elections/boss
         > answer read_values broken
         drop link Connection
         state suspended",
    ));
}
