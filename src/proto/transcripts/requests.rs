//! Joins, edits, leaves, and what becomes of them.

use super::*;

const JOINED: &str = "> join 1 a
    join a opening c-1 take nonce 1
    > answer join 10
    keep c-1
    a holds 10
    joined a@10/10
    answer 1 joined a@10
    ";

pub(super) fn joined(rest: &str) -> String {
    live("", &format!("{JOINED}{rest}"))
}

#[test]
fn the_first_join_opens_the_session_and_the_others_wait_for_it() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > join 2 b
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         join b in c-1 take nonce 2
         answer 1 joined a@10
         > answer join 11
         b holds 11
         joined b@11/11
         answer 2 joined b@11
         > join 3 b
         answer 3 AlreadyJoined",
    ));
}

#[test]
fn a_lost_reply_is_asked_for_again_under_the_same_name() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > down
         state suspended
         > up
         join a opening c-1 take nonce 1
         sweep
         plant
         list all
         > answer list 9
         snapshot []
         state connected
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10",
    ));
}

#[test]
fn a_join_whose_time_is_up_is_undone_where_it_may_have_happened() {
    check("> join 1 a\n> wait 3000\nanswer 1 Timeout\na ended left");
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > down
         state suspended
         > wait 3000
         answer 1 Timeout perhaps
         a ended left
         > up
         close c-1
         sweep
         plant
         list all",
    ));
}

#[test]
fn an_edit_behind_a_join_that_times_out_is_answered() {
    check("> join 1 a\n> text 2 a x\n> wait 3000\nanswer 1 Timeout\na ended left\nanswer 2 Timeout");
}

#[test]
fn edits_go_one_at_a_time_and_build_on_each_other() {
    check(&joined(
        "> text 2 a x
         update a@10 x nonce 2
         > text 3 a y
         > answer update 11
         updated a@10/10 to a@10/11
         update a@10 y nonce 3
         answer 2 Edited
         > answer update 12
         updated a@10/11 to a@10/12
         answer 3 Edited",
    ));
}

#[test]
fn an_edit_under_way_when_its_member_leaves_is_answered() {
    check(&joined(
        "> text 2 a x
         update a@10 x nonce 2
         > leave 3 a
         a ended left
         leave a@10
         > answer update 11
         answer 2 Edited
         > answer leave true
         left a@10/10 left
         answer 3 left true",
    ));
}

#[test]
fn leaving_is_answered_when_the_view_shows_it() {
    check(&joined(
        "> leave 2 a
         a ended left
         leave a@10
         > answer leave true
         left a@10/10 left
         answer 2 left true
         > leave 3 a
         answer 3 left false",
    ));
}

#[test]
fn a_leave_that_is_refused_is_said_again_later_and_later() {
    check(&joined(
        "> leave 2 a
         a ended left
         leave a@10
         > answer leave refused
         warn
         answer 2 ForeignValue
         > wait 3
         touch_canary
         > wait 96
         > wait 1
         leave a@10
         > answer leave refused
         warn
         > wait 199
         > wait 1
         leave a@10
         > answer leave true
         left a@10/10 left",
    ));
}

#[test]
fn who_joins_again_while_an_earlier_join_is_under_way_is_another_member() {
    check(&joined(
        "> join 2 b
         join b in c-1 take nonce 2
         > leave 3 b
         b ended left
         leave b@any
         > join 4 b
         join b in c-1 take nonce 4
         > answer join 11
         joined b@11/11
         leave b@11
         answer 2 Lost
         > answer join 12
         b holds 12
         left b@11/11 replaced, joined b@12/12
         answer 4 joined b@12
         > answer leave true
         read b
         answer 3 left true
         > answer leave false
         > answer read b@12
         read b
         > answer read b@12",
    ));
}

#[test]
fn a_member_taken_over_ends_and_one_removed_comes_back() {
    check(&joined("> hear set a\nread a\n> answer read a@15\na ended replaced\nleft a@10/10 replaced, joined a@15/15"));
    check(&joined(
        "> hear del a
         read a
         > answer read removed
         warn
         a lost removed
         left a@10/10 removed
         join a in c-1 rejoin nonce 2
         > answer join 20
         a holds 20
         joined a@20/20",
    ));
}

#[test]
fn a_join_overwritten_before_its_reply_is_replaced() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > hear set a
         read a
         > answer read a@11
         joined a@11/11
         > answer join 10
         keep c-1
         a holds 10
         read a
         answer 1 joined a@10
         > answer read a@11
         a ended replaced",
    ));
}

#[test]
fn a_membership_that_nobody_claims_is_given_back() {
    check(&joined(
        "> unclaimed a 9\n> unclaimed a 10\na ended left\nleave a@10\n> answer leave true\nleft a@10/10 left",
    ));
}

#[test]
fn close_is_repeated_until_nothing_is_left_and_answers_whoever_waits() {
    check(&joined(
        "> text 2 a x
         update a@10 x nonce 2
         > close 3
         release
         answer 2 Closed
         a ended left
         close c-1
         > join 4 b
         answer 4 Closed
         > answer close 1
         close c-1
         > answer close 0
         answer 3 Closed
         state closed
         closed",
    ));
}

#[test]
fn who_was_removed_and_does_not_come_back_leaves_no_place_behind() {
    let removed = "> hear del a
         read a
         > answer read removed";
    check_with(
        OnLost::Stop,
        &joined(&format!("{removed}\na ended removed\nleft a@10/10 removed\nleave a@10\n> answer leave no\nread a")),
    );
    check(&joined(&format!(
        "{removed}
         warn
         a lost removed
         left a@10/10 removed
         join a in c-1 rejoin nonce 2
         > answer join refused
         warn
         > leave 2 a
         a ended left
         answer 2 left false
         leave a@10"
    )));
}

#[test]
fn a_command_that_breaks_drops_the_link() {
    check(&joined(
        "> leave 2 a
         a ended left
         leave a@10
         > answer leave broken
         drop link Connection
         state suspended",
    ));
}
