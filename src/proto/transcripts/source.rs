//! Sources of hints: how they prove themselves, and what takes their place.

use super::*;

/// The link comes up, and its first canary comes home.
fn proven(rest: &str) -> String {
    live(
        "a@1",
        &format!(
            "> wait 3\ntouch_canary\n> answer touch_canary\n> canary expired\n> canary set\n> canary del\nproven Keyspace\n{rest}"
        ),
    )
}

/// A reconcile at which the canary of this source does not come home.
const DEAF: &str = "> wait 850
     sweep
     plant
     list since 9 1
     > answer list same
     > answer sweep
     > answer plant
     > wait 3
     touch_canary
     > answer touch_canary
     > wait 500
";

#[test]
fn what_served_until_now_is_made_anew_before_something_else_takes_its_place() {
    check(&proven(&format!(
        "{DEAF}
         unproven Keyspace
         listen Keyspace
         > answer listen
         sweep
         plant
         list all
         > answer sweep
         > answer list 9 a@1
         > answer plant
         > wait 3
         touch_canary
         > answer touch_canary
         > wait 500
         warn
         unproven Keyspace
         listen Tracking
         > answer listen
         sweep
         plant
         list all
         > invalid canary
         > answer plant
         > wait 3
         touch_canary
         > invalid canary
         proven Tracking"
    )));
}

#[test]
fn a_source_made_anew_that_proves_itself_goes_on() {
    check(&proven(&format!(
        "{DEAF}
         unproven Keyspace
         listen Keyspace
         > answer listen
         sweep
         plant
         list all
         > answer list 10 a@1 b@10
         read b
         > answer read b@10
         joined b@10/10
         > canary set
         > canary del
         > canary expired
         proven Keyspace"
    )));
}

#[test]
fn a_server_that_is_slow_to_answer_is_no_proof_against_its_notifications() {
    check(&proven(
        "> wait 850
         sweep
         plant
         list since 9 1
         > answer list same
         > answer plant
         > wait 3
         touch_canary
         > wait 600
         > canary set
         > canary del
         > canary expired
         proven Keyspace
         > answer touch_canary",
    ));
}

#[test]
fn what_is_refused_is_passed_over_and_tried_again_later_and_later() {
    check(
        "> link
         listen Keyspace
         > answer listen refused
         warn
         unproven Keyspace
         listen Tracking
         > answer listen refused
         warn
         unproven Keyspace
         listen Poll
         > answer listen deaf
         no inbox
         source Poll
         sweep
         list all
         > answer sweep
         > answer list 9
         snapshot []
         state connected
         > wait 850
         sweep
         list since 9 0
         > answer sweep
         > answer list same
         > wait 150
         listen Keyspace
         > answer listen refused
         source Poll
         listen Tracking
         > answer listen refused
         source Poll
         listen Poll
         > answer listen deaf
         no inbox
         source Poll
         sweep
         list all
         > wait 1000
         > wait 1000
         listen Keyspace
         > answer listen
         plant
         > canary set
         > answer plant
         > canary expired
         > canary del
         proven Keyspace",
    );
}

#[test]
fn a_flush_that_tracking_tells_of_is_looked_into() {
    check(
        "> link
         listen Keyspace
         > answer listen refused
         warn
         unproven Keyspace
         listen Tracking
         > answer listen
         sweep
         plant
         list all
         > answer list 9 a@1
         read a
         > answer read a@1
         snapshot [a@1/1]
         state connected
         > invalid all
         list all
         > answer list 0
         read a
         > answer read expired
         left a@1/1 expired",
    );
}

#[test]
fn who_wants_the_flags_checked_is_told_when_connecting_and_later_served_otherwise() {
    check("> link\nlisten Keyspace\n> answer listen unchecked\ndrop link Notifications");
    check(&proven(&format!(
        "{DEAF}\nunproven Keyspace\nlisten Keyspace\n> answer listen unchecked\nwarn\nunproven Keyspace\nlisten Tracking"
    )));
}

#[test]
fn a_link_that_ends_proves_nothing_and_where_not_even_polling_is_let_in_it_is_made_anew() {
    check(&proven("> down\nunproven Keyspace\nstate suspended"));
    check(
        "> link
         listen Keyspace
         > answer listen refused
         warn
         unproven Keyspace
         listen Tracking
         > answer listen refused
         warn
         unproven Keyspace
         listen Poll
         > answer listen refused
         drop link ForeignValue",
    );
}
