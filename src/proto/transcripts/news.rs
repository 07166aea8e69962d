//! News: what a script tells of its write needs no read, and what is in doubt is read all the same.

use super::*;

#[test]
fn what_news_has_told_is_not_read() {
    check(&live(
        "a@1",
        "> news joined b@10/10 300
         joined b@10/10
         > hear set b
         > hear expire b
         > news updated b@10/12
         updated b@10/10 to b@10/12
         > hear set b
         > news left b@10
         left b@10/12 left
         > hear del b
         > news expired a@1
         left a@1/1 expired
         > hear expired a",
    ));
}

#[test]
fn a_write_that_no_news_came_before_is_read() {
    check(&live(
        "a@1",
        "> news updated a@1/12
         updated a@1/1 to a@1/12
         > hear set a
         > hear set a
         read a
         > answer read a@1/13
         updated a@1/12 to a@1/13",
    ));
    // Another member's notification came between: something is missing.
    check(&live(
        "a@1 b@2",
        "> news updated a@1/12
         updated a@1/1 to a@1/12
         > hear set b
         read b
         > hear set a
         > answer read b@2
         read a",
    ));
    // So is what another program does to what is known.
    check(&live("a@1", "> news updated a@1/12\nupdated a@1/1 to a@1/12\n> hear del a\nread a"));
}

#[test]
fn news_that_an_answer_has_overtaken_is_no_more_than_a_hint() {
    check(&live(
        "",
        "> hear set b
         read b
         > answer read as-of 20 left
         > news joined b@15/15 300
         read b
         > hear set b
         > answer read left
         read b
         > answer read left
         > news joined b@21/21 300
         joined b@21/21",
    ));
    // The listing when the link came up was made at 9.
    check(&live("", "> news joined b@9/9 300\nread b"));
}

#[test]
fn news_older_than_what_is_known_changes_nothing() {
    check(&live(
        "a@1",
        "> news updated a@1/14
         updated a@1/1 to a@1/14
         > news updated a@1/12
         > hear set a
         > news left a@0
         > hear del a
         read a
         > answer read a@1/14",
    ));
}

#[test]
fn an_answer_under_way_does_not_bring_back_who_has_left_by_news() {
    check(&live(
        "",
        "> hear set b
         read b
         > news left b@10
         > answer read b@10
         read b
         > answer read left",
    ));
}

#[test]
fn of_our_own_members_answers_tell_and_not_news() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > news joined a@10/10:c-1 300
         > hear set a
         read a
         > answer join 10
         keep c-1
         a holds 10
         joined a@10/10
         answer 1 joined a@10
         > answer read a@10/10:c-1
         > news left a@10
         > hear del a
         read a",
    ));
}

#[test]
fn while_all_is_being_listed_news_is_a_hint() {
    check(
        "> up
         sweep
         plant
         list all
         > news joined b@10/10 300
         read b
         > answer sweep
         > answer plant
         > answer list 9
         > answer read b@10/10
         snapshot [b@10/10]
         state connected",
    );
}

#[test]
fn the_lease_of_who_joins_is_swept_for_in_time() {
    check(&live(
        "",
        "> news joined b@10/10 300
         joined b@10/10
         > wait 300
         touch_canary
         > wait 1
         sweep
         > answer sweep b
         > news expired b@10
         left b@10/10 expired
         > wait 3
         touch b
         > answer touch
         > hear expired b",
    ));
}

#[test]
fn where_no_news_of_a_death_comes_the_sweeper_reads() {
    check(&live(
        "b@2",
        "> sync 1
         sweep
         list since 9 1
         > answer sweep b
         > answer list same
         answer 1 Synced
         > wait 3
         touch_canary
         touch b
         > answer touch
         read b
         > answer read expired
         left b@2/2 expired",
    ));
}
