//! Histories that once ended elsewhere.

use super::*;

#[test]
fn a_flush_before_the_first_relisting_is_found() {
    let mut steps = vec![Step::Serve(2); 3];
    steps.extend([Step::Deliver(2, 0), Step::Deliver(2, 0), Step::Deliver(2, 0), Step::Join(0, 1)]);
    steps.extend([Step::Serve(0), Step::Serve(0), Step::Serve(0), Step::Serve(0)]);
    steps.extend([Step::Notify(2), Step::Notify(2), Step::Serve(2), Step::Deliver(2, 0), Step::FlushAll]);
    tell(&steps, true, false);
}

#[test]
fn an_edit_under_way_when_its_member_ends_is_answered() {
    let mut steps = vec![Step::Serve(0), Step::Join(0, 2), Step::Serve(0), Step::Serve(0), Step::Serve(0)];
    steps.extend([Step::Deliver(0, 0), Step::Deliver(0, 2), Step::Update(0, 2, 1), Step::FlushAll, Step::Beat(0)]);
    steps.extend([Step::Serve(0), Step::Deliver(0, 2), Step::Join(0, 2)]);
    tell(&steps, true, false);
}

#[test]
fn a_leave_that_was_not_answered_in_time_is_said_again() {
    let mut steps = vec![Step::Join(0, 2), Step::Serve(0), Step::Serve(0), Step::Leave(0, 2), Step::Deliver(0, 1)];
    steps.extend([97, 157, 312].map(Step::Time));
    steps.extend([Step::Down(0), Step::Time(1), Step::Beat(0)]);
    steps.extend([239, 122, 342, 48, 109, 73].map(Step::Time));
    tell(&steps, false, false);
}

#[test]
fn a_join_that_was_given_up_does_not_count_for_the_next() {
    let mut steps = vec![Step::Join(1, 1), Step::Serve(1), Step::Deliver(1, 0), Step::Serve(1), Step::Join(1, 0)];
    steps.extend([Step::Serve(1); 3]);
    steps.extend([Step::Deliver(1, 0), Step::Leave(1, 0), Step::Serve(1), Step::Deliver(1, 0), Step::Join(1, 0)]);
    steps.extend([Step::Deliver(1, 2), Step::Serve(1), Step::Serve(1), Step::Up(1)]);
    tell(&steps, false, false);
}

#[test]
fn a_read_from_before_a_join_does_not_replace_it() {
    let mut steps = vec![Step::Sync(0), Step::Serve(0), Step::Foreign(0, 0), Step::Serve(0), Step::Deliver(0, 0)];
    steps.extend([Step::Notify(0), Step::Deliver(0, 0), Step::Serve(0), Step::Serve(0), Step::Join(0, 0)]);
    steps.extend([Step::Serve(0), Step::FlushAll, Step::Deliver(0, 0), Step::Serve(0), Step::Deliver(0, 2)]);
    tell(&steps, false, false);
}

#[test]
fn a_rejoin_under_way_whose_member_leaves_is_taken_back() {
    let mut steps = vec![Step::Join(0, 1), Step::Serve(0), Step::Serve(0), Step::FlushAll, Step::Join(0, 2)];
    steps.extend([Step::Deliver(0, 1), Step::Beat(0), Step::Up(0), Step::Serve(0), Step::Serve(0)]);
    steps.extend([Step::Deliver(0, 1), Step::Serve(0), Step::Leave(0, 1), Step::Up(0)]);
    tell(&steps, false, false);
}
