//! The cases. Each is named for what it asserts, and takes a fresh cache and the store's profile.

// A failing case panics; that is what it is for.
#![allow(clippy::missing_panics_doc)]

pub mod ahead;
pub mod anew;
pub mod basics;
pub mod compute;
pub mod concurrent;
pub mod counters;
pub mod explain;
pub mod flight;
pub mod grace;
pub mod handles;
pub mod keys;
pub mod life;
pub mod limits;
pub mod many;
pub mod oracle;
pub mod outrun;
pub mod values;

macro_rules! list {
    // The dollar sign is handed in, so that the exported macro has one of its own.
    ($dollar:tt $($form:ident { $($group:ident { $($case:ident)* })* })*) => {
        /// Every case, as group and name.
        pub const ALL: &[(&str, &str)] = &[$($($((stringify!($group), stringify!($case)),)*)*)*];

        /// Hands the list of all cases, after what it is given, to the macro that makes tests of them.
        #[doc(hidden)]
        #[macro_export]
        macro_rules! __conformance_cases {
            ($dollar($dollar given:tt)*) => {$(
                $dollar crate::__conformance_tests! { $dollar($dollar given)* $form $($group { $($case)* })* }
            )*};
        }
    };
}

list! { $
    // Compiled once, for the erased store: what they assert does not depend on the handle's type.
    erased {
        ahead {
            a_value_near_its_end_is_computed_anew
            a_value_far_from_its_end_is_left_alone
            one_at_a_time_computes_anew
            a_failed_refresh_is_not_tried_again_for_a_while
            a_delete_wins_over_a_refresh
            shutdown_waits_for_refreshes
        }
        anew {
            a_refresh_replaces_a_value
            a_refresh_that_stores_nothing_leaves_the_value
            a_refreshed_value_without_a_life_removes_the_older
            a_refresh_holds_nobody_up
            a_refresh_wins_over_an_older_compute
            a_delete_wins_over_a_refresh_under_way
        }
        basics {
            an_absent_key_holds_nothing
            a_set_value_is_read_back
            a_set_overwrites
            keys_are_apart
            delete_tells_whether_there_was_anything
            has_tells_of_any_type
            add_stores_only_if_absent
            a_prefix_is_part_of_the_key
            clear_covers_its_prefix_alone
            reads_and_writes_are_counted
            shutdown_ends
        }
        compute {
            a_computed_value_is_stored
            a_set_value_is_not_computed
            shared_computes_are_stored
            errors_are_not_stored
            a_compute_may_borrow
            a_compute_may_use_the_cache
            a_deleted_value_is_computed_anew
        }
        concurrent {
            concurrent_increments_add_up
            one_of_concurrent_adds_wins
            reads_never_go_back_in_time
            computes_never_bring_back_the_deleted
        }
        counters {
            a_new_counter_begins_at_zero
            adding_zero_makes_a_counter
            decr_subtracts
            a_counter_keeps_its_ttl
            a_set_integer_is_a_counter
            a_counter_reads_as_integer_and_text
            an_overflow_leaves_the_value
            an_integer_beyond_i64_is_no_counter
            the_least_integer_cannot_be_subtracted
            other_values_are_no_counters
            a_computed_integer_is_no_counter
        }
        explain {
            a_value_is_explained
            nothing_is_explained
            a_stale_value_is_explained
            another_type_is_explained
            a_kept_failure_is_explained
        }
        flight {
            ten_thousand_callers_share_one_compute
            a_dropped_leader_is_replaced
            a_panicking_leader_is_replaced
            a_parked_leader_is_replaced
            an_erring_leader_is_replaced_once
            a_second_error_is_told_to_all
            hanging_computes_hold_nobody_for_ever
            callers_that_all_go_away_leave_nothing
            two_types_never_mix
        }
        grace {
            a_stale_value_is_answered_when_its_compute_errs
            a_stale_value_is_computed_anew_after_a_while
            a_stale_value_is_answered_when_its_compute_panics
            a_grace_must_be_chosen_twice
            a_set_value_has_a_grace
            an_invalidated_value_is_never_answered_stale
            a_stale_value_is_nothing_to_a_write
            a_touched_value_keeps_its_grace
            a_slow_compute_goes_on_while_its_caller_has_the_stale_value
            a_hard_timeout_ends_a_call_and_its_compute
            a_hard_timeout_ends_waiting_for_others
            a_stale_value_is_answered_at_the_hard_timeout
            a_compute_of_its_own_goes_on_past_the_hard_timeout
            a_compute_may_have_its_value_not_stored
            a_call_tells_where_its_answer_came_from
            a_compute_may_answer_that_nothing_changed
        }
        keys {
            reads_refuse_bad_keys
            writes_refuse_bad_keys
            computes_go_on_with_bad_keys
            many_computes_go_on_with_bad_keys
            long_and_foreign_keys_work
        }
        life {
            a_zero_ttl_removes
            an_add_with_a_zero_ttl_stores_nothing
            a_compute_with_a_zero_ttl_is_not_stored
            forever_has_no_deadline
            default_is_the_caches_own
            ttl_tells_what_is_left
            a_set_replaces_the_ttl
            values_expire
            values_live_until_they_expire
            touch_lengthens
            a_touched_value_outlives_its_old_deadline
            touch_shortens
            touch_of_an_absent_key_makes_nothing
            touch_with_a_zero_ttl_removes
        }
        limits {
            a_computed_none_has_a_life_of_its_own
            lives_are_shortened_by_chance
            a_failure_is_kept_for_those_who_choose_it
            a_kept_failure_ends
            no_more_wait_than_may
            a_kept_failure_is_not_told_to_who_did_not_choose_it
        }
        many {
            values_come_in_the_order_asked
            a_dict_has_the_keys_that_hold_something
            set_many_stores_all
            delete_many_counts
            missing_keys_are_computed_together
            held_keys_are_not_computed
            a_key_left_out_is_none
            own_values_are_published_before_others_are_awaited
            keys_of_a_lost_leader_are_computed_in_one_more_call
            a_key_left_out_is_computed_by_who_waits
            each_key_is_stored_or_fails_by_itself
            each_key_has_a_grace_of_its_own
        }
        oracle {
            random_operations_match_a_naive_map
        }
        outrun {
            a_delete_wins
            a_set_wins
            an_add_wins
            an_incr_wins
            a_touch_wins
            a_clear_wins
            writes_of_many_win
            a_delete_wins_over_a_compute_of_many
            a_call_after_a_delete_computes_anew
            a_delete_wins_over_a_store_under_way
            a_set_wins_over_a_store_under_way
            a_value_is_answered_while_it_is_stored
            a_dropped_write_blocks_nobody
        }
        values {
            structs_come_back
            plain_values_come_back
            text_and_bytes_come_back
            a_mebibyte_comes_back
            none_and_some_none_are_told_apart
            a_stored_none_is_a_hit
            another_type_is_a_miss_and_stays
            a_compute_replaces_another_type
            a_value_that_cannot_be_encoded_changes_nothing
            a_computed_value_that_cannot_be_encoded_is_answered
        }
    }
    typed {
        handles {
            clones_and_erased_handles_share_the_store
            all_handles_share_one_compute
            a_write_wins_through_every_handle
        }
    }
}

#[cfg(test)]
mod tests {
    /// A case that is not on the list would never run.
    #[test]
    fn every_case_is_listed() {
        let sources = [
            ("ahead", include_str!("ahead.rs")),
            ("anew", include_str!("anew.rs")),
            ("basics", include_str!("basics.rs")),
            ("compute", include_str!("compute.rs")),
            ("concurrent", include_str!("concurrent.rs")),
            ("counters", include_str!("counters.rs")),
            ("explain", include_str!("explain.rs")),
            ("flight", include_str!("flight.rs")),
            ("grace", include_str!("grace.rs")),
            ("keys", include_str!("keys.rs")),
            ("life", include_str!("life.rs")),
            ("limits", include_str!("limits.rs")),
            ("many", include_str!("many.rs")),
            ("oracle", include_str!("oracle.rs")),
            ("outrun", include_str!("outrun.rs")),
            ("values", include_str!("values.rs")),
            ("handles", include_str!("handles.rs")),
        ];
        let written = sources.iter().flat_map(|(group, source)| {
            let cases = source.split("\npub async fn ").skip(1);
            cases.map(|case| (*group, case.split(['<', '(']).next().unwrap_or_default()))
        });
        assert_eq!(written.collect::<Vec<_>>(), super::ALL);
    }
}
