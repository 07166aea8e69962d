//! A membership that nobody gave up, and that no other connector took over, comes back.

use super::requests::joined;
use super::*;

/// Only another connector's join ends a membership, and the owner's own leave.
#[test]
fn a_member_that_nobody_gave_up_comes_back() {
    for (found, cause, told) in [
        // Another program's text.
        ("a@15:~", "replaced", "left a@10/10 replaced, joined a@15/15"),
        // A late join of this connector's own.
        ("a@15:c-1", "replaced", "left a@10/10 replaced, joined a@15/15"),
        ("a@15:c-7", "replaced", "left a@10/10 replaced, joined a@15/15"),
        // Record and place in the index are gone, as after a leave.
        ("left", "removed", "left a@10/10 left"),
        ("strange", "removed", "left a@10/10 removed"),
    ] {
        let warned = if found == "strange" { "warn\nwarn" } else { "warn" };
        let overwritten = format!("> hear set a\nread a\n> answer read {found}\n{warned}\na lost {cause}\n{told}");
        let back = if found.starts_with("a@") { "left a@15/15 replaced, joined a@20/20" } else { "joined a@20/20" };
        check(&joined(&format!(
            "{overwritten}
             join a in c-1 rejoin nonce 2
             > answer join 20
             a holds 20
             {back}"
        )));
        // Another connector came first.
        check(&joined(&format!(
            "{overwritten}
             join a in c-1 rejoin nonce 2
             > answer join taken
             a ended replaced"
        )));
    }
}

#[test]
fn with_stop_a_member_that_nobody_gave_up_ends() {
    let ends = |found: &str, rest: &str| {
        let script = format!("> hear set a\nread a\n> answer read {found}\na ended {rest}");
        check_with(OnLost::Stop, &joined(&script));
    };
    ends("a@15:~", "replaced\nleft a@10/10 replaced, joined a@15/15");
    ends("left", "removed\nleft a@10/10 left\nleave a@10\n> answer leave no\nread a");
    // What this connector itself has left there must go with it.
    ends("a@15:c-1", "replaced\nleft a@10/10 replaced, joined a@15/15\nleave a@any");
}

#[test]
fn a_join_overwritten_by_another_program_before_its_reply_is_put_right() {
    check(&live(
        "",
        "> join 1 a
         join a opening c-1 take nonce 1
         > hear set a
         read a
         > answer read a@11:~
         joined a@11/11
         > answer join 10
         keep c-1
         a holds 10
         read a
         answer 1 joined a@10
         > answer read a@11:~
         warn
         a lost replaced
         > wait 0
         join a in c-1 rejoin nonce 2",
    ));
}
