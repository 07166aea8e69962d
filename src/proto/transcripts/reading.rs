//! Hints, reads, listings, sweeps and the canary.

use super::*;

#[test]
fn the_first_sync_is_one_snapshot() {
    check(&live("a@1 b@2", ""));
    check(&live("", ""));
}

#[test]
fn a_hint_is_read_and_the_read_decides() {
    check(&live(
        "a@1",
        "> hear set b
         read b
         > answer read b@10
         joined b@10/10
         > hear set b
         read b
         > answer read b@10/12
         updated b@10/10 to b@10/12
         > hear set b
         read b
         > answer read b@10/11
         > hear set a
         read a
         > answer read a@13
         left a@1/1 replaced, joined a@13/13",
    ));
}

#[test]
fn the_cause_of_a_leave_is_the_reads() {
    for (event, found, cause) in [
        ("del", "left", "left"),
        ("expired", "left", "left"),
        ("del", "expired", "expired"),
        ("del", "removed", "removed"),
        ("evicted", "removed", "evicted"),
        ("del", "gone", "left"),
        ("expired", "gone", "expired"),
    ] {
        check(&live("a@1", &format!("> hear {event} a\nread a\n> answer read {found}\nleft a@1/1 {cause}")));
    }
    check(&live("a@1", "> hear set a\nread a\n> answer read strange\nwarn\nleft a@1/1 removed"));
}

#[test]
fn one_read_is_under_way_and_hints_wait_for_it_together() {
    check(&live(
        "a@1",
        "> hear set b
         read b
         > hear set c
         > hear set d
         > hear set c
         > hear del b
         > answer read b@10
         joined b@10/10
         read c d b
         > answer read c@11 d@12 left
         joined c@11/11, joined d@12/12, left b@10/10 left",
    ));
}

#[test]
fn a_read_that_was_under_way_when_we_joined_neither_ends_nor_replaces_what_we_wrote() {
    let joining = "> hear set a
         read a
         > join 1 a
         join a opening c-1 take nonce 1
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10";
    for earlier in ["expired", "a@20"] {
        check(&live("", &format!("{joining}\n> answer read {earlier}\nread a\n> answer read a@10")));
    }
    // What says the same needs no second look.
    check(&live("", &format!("{joining}\n> answer read a@10")));
}

#[test]
fn the_expiry_times_of_our_own_records_are_of_no_interest() {
    check(&live("a@1", "> hear expire a\n> hear expire b\nread b\n> answer read left"));
}

#[test]
fn a_hint_while_syncing_waits_for_the_snapshot() {
    check(
        "> up
         sweep
         plant
         list all
         > hear set b
         read b
         > answer read b@3
         > answer list 9 a@1 ..
         list after 1
         read a
         > answer read a@1
         > answer list 9 b@3
         snapshot [a@1/1 b@3/3]
         state connected",
    );
}

#[test]
fn a_link_that_breaks_in_the_middle_begins_anew() {
    check(
        "> up
         sweep
         plant
         list all
         > answer list 9 a@1 b@2
         read a b
         > down
         > late read a@1 b@2
         > up
         sweep
         plant
         list all
         > answer list 10 b@2
         read b
         > answer read b@2
         snapshot [b@2/2]
         state connected",
    );
}

#[test]
fn a_link_that_breaks_later_ends_in_a_snapshot_too() {
    check(&live(
        "a@1",
        "> down
         state suspended
         > up
         sweep
         plant
         list all
         > answer list 12 b@11
         read b a
         > answer read b@11 expired
         snapshot [b@11/11]
         state connected",
    ));
}

#[test]
fn a_reconcile_that_finds_nothing_says_nothing_and_one_that_does_reads_only_that() {
    check(&live(
        "a@1 b@2",
        "> wait 3
         touch_canary
         > canary expired
         > canary set
         > canary del
         proven Keyspace
         > wait 900
         sweep
         plant
         list since 9 2
         > answer list same
         > answer sweep
         > answer plant
         > sync 1
         sweep
         list since 9 2
         > answer list 20 a@1 c@20
         read c b
         > answer read c@20 left
         joined c@20/20, left b@2/2 left
         answer 1 Synced",
    ));
}

#[test]
fn a_record_that_the_index_does_not_list_is_gone_though_it_stands() {
    // Swept, and whoever swept did not live to touch it.
    check(&live("a@1", "> hear expired a\nread a\n> answer read expired\nleft a@1/1 expired"));
}

#[test]
fn a_sweep_that_finds_more_goes_on_and_touches_what_is_dying() {
    check(&live(
        "a@1 b@2",
        "> sync 1
         sweep
         list since 9 2
         > answer sweep more a
         sweep
         > answer sweep b
         > wait 3
         touch_canary
         touch a
         touch b
         > answer touch
         read a
         > answer read expired
         left a@1/1 expired
         > answer touch
         read b
         > answer read expired
         left b@2/2 expired",
    ));
}

#[test]
fn the_earliest_deadline_is_looked_at_when_it_has_passed() {
    check(&live(
        "",
        "> sync 1
         sweep
         list since 9 0
         > answer sweep due 100
         > wait 100
         touch_canary
         > wait 1
         sweep",
    ));
}

#[test]
fn a_refusal_ends_a_sync_and_only_warns_later() {
    check("> up\nsweep\nplant\nlist all\n> answer list refused\ndrop link ForeignValue");
    check(&live("a@1", "> sync 1\nsweep\nlist since 9 1\n> answer list refused\nwarn\nanswer 1 ForeignValue"));
}

#[test]
fn what_the_server_has_forgotten_is_forgotten() {
    check(&live("b@8", "> hear set b\nread b\n> answer read b@5\nleft b@8/8 replaced, joined b@5/5"));
    // Who has left while a listing is under way may be in it, or there again.
    check(&live(
        "b@8",
        "> sync 1
         sweep
         list since 9 1
         > hear del b
         read b
         > answer read left
         left b@8/8 left
         > answer list 3 b@3
         read b
         > answer read b@3
         joined b@3/3
         answer 1 Synced",
    ));
}

#[test]
fn a_listing_that_is_older_than_what_is_known_is_no_news() {
    check(&live(
        "b@8",
        "> sync 1
         sweep
         list since 9 1
         > hear set b
         read b
         > answer read b@10
         left b@8/8 replaced, joined b@10/10
         > answer list 9 b@8
         read b
         > answer read b@10
         answer 1 Synced",
    ));
}
