//! What we promise, and the tests that hold it: one row for each way in which second factors have gone wrong that we know of,
//! and for each rule of our own. `docs/promises.md` is made from this; `PAM_TOTP_WRITE=1` writes it.

use crate::support::{output_of, project};
use Held::{By, Never};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A promise by its number, in one sentence.
struct Row(u8, &'static str, Held);

/// What stands behind it.
enum Held {
    /// Tests, by their full paths; the first one is named after the promise. Those through real programs are named as this
    /// program names them; others have `lib::`, `pam-totp::` (the program's) or `must-not-compile::` in front.
    By(&'static [&'static str]),
    /// Why it cannot apply.
    Never(&'static str),
}

/// How many rows may do without a test.
const MOST_WITHOUT: usize = 8;

/// Tests that are being written. To become empty.
const TO_COME: &[&str] = &[];

/// The command that writes the page, as the page and the test say it.
const REWRITE: &str = "PAM_TOTP_WRITE=1 cargo test --features cli --locked --test real promises::";

const CLASSES: [Row; 50] = [
    // ---- Files ----
    Row(
        1,
        "Nothing that is planted where we read, write or lock is followed, written to or waited for.",
        By(&[
            "pam_stack::what_is_planted_where_a_login_writes_is_neither_followed_nor_written_to",
            "pam_stack::what_is_no_secret_file_is_denied_and_left_as_it_is",
            "pam_stack::links_above_the_home_are_roots_business_and_below_it_nobodys",
            "faults::files_are_opened_by_name_in_an_open_directory_without_blocking_and_without_following",
            "pam_stack::a_lock_that_is_never_given_back_denies_after_a_while",
            "bulk::links_and_fifos_are_replaced_and_never_written_to",
        ]),
    ),
    Row(
        2,
        "No word of a file that is not ours to read gets into a log, not even with `debug`.",
        By(&["pam_stack::nothing_of_a_file_that_is_not_ours_to_read_is_logged_not_even_with_debug"]),
    ),
    Row(
        3,
        "No descriptor of ours stays open or gets into the session.",
        By(&[
            "guest::what_a_session_inherits_has_no_descriptor_of_ours",
            "pam_stack::ten_thousand_logins_leave_nothing_behind",
        ]),
    ),
    Row(
        4,
        "A FIFO in the place of a file, a directory or the policy is denied at once.",
        By(&[
            "policy::sshd_and_su_wait_for_no_fifo_in_the_place_of_the_policy",
            "pam_stack::what_is_no_secret_file_is_denied_and_left_as_it_is",
            "system_store::what_is_no_record_denies_promptly_and_enrolling_anew_is_the_way_out",
            "guest::with_the_root_only_store_nothing_in_a_home_is_opened",
        ]),
    ),
    Row(
        5,
        "With the root-only store no path that a user can change is opened.",
        By(&["guest::with_the_root_only_store_nothing_in_a_home_is_opened"]),
    ),
    Row(
        6,
        "No name that somebody else chooses becomes a path: not the user's, not the remote one's, not the terminal's.",
        By(&[
            "guest::what_others_choose_is_in_the_name_of_no_file",
            "pam_stack::names_that_are_no_names_are_denied_like_anybody",
            "system_store::odd_names_have_records_of_their_own",
            "lib::identity::tests::a_file_name_is_that_of_one_person_alone",
        ]),
    ),
    Row(
        7,
        "In the root-only store nobody reads their own secret.",
        By(&["devices::a_record_cannot_be_read_by_whom_it_is_about"]),
    ),
    Row(
        8,
        "Nobody can write, shorten, replace or lock what is counted and kept about them there.",
        By(&[
            "guest::nobody_can_write_shorten_open_or_lock_what_is_kept_about_them",
            "throttle::a_ledger_that_somebody_else_could_have_changed_denies_everybody",
        ]),
    ),
    Row(
        9,
        "Ids, groups, umask, signals and directory are afterwards what they were, whatever went wrong.",
        By(&[
            "guest::ids_groups_umask_signals_and_directory_are_afterwards_what_they_were",
            "lib::system::ids::tests::ids_are_given_back_also_after_a_panic",
        ]),
    ),
    Row(
        10,
        "A file in a home is opened, locked and replaced with its owner's rights, never with root's.",
        By(&[
            "guest::a_file_in_a_home_is_opened_with_its_owners_rights",
            "pam_stack::the_owner_is_checked_also_where_the_file_can_be_read",
        ]),
    ),
    // ---- Answers to libpam ----
    Row(
        11,
        "An error is a denial: nothing that fails is a success or is passed over.",
        By(&[
            "fault_matrix::whatever_call_fails_or_is_the_last_a_code_works_once_and_nothing_is_lost",
            "fault_matrix::where_an_error_is_passed_over_it_is_found",
            "faults::whatever_call_fails_nobody_gets_in_on_a_code_that_is_not_used_up",
            "system_store::whatever_call_fails_nobody_gets_in_on_a_code_that_is_not_used_up",
            "faults::memory_or_descriptors_that_run_out_let_nobody_in_on_a_code_that_is_not_used_up",
            "lib::pam::entry::tests::a_panic_is_a_denial_and_prints_nothing",
        ]),
    ),
    Row(
        12,
        "What cannot be read is not taken for somebody who never enrolled.",
        By(&[
            "pam_stack::nullok_passes_over_who_never_enrolled_and_nobody_else",
            "faults::with_nullok_no_fault_makes_an_enrolled_person_look_like_one_who_is_not",
            "system_store::with_nullok_no_fault_makes_an_enrolled_person_look_like_one_who_is_not",
            "system_store::what_is_no_store_lets_nobody_in_and_nobody_pass",
            "lib::store::home::tests::absence_is_told_from_error",
        ]),
    ),
    Row(
        13,
        "No answer at all is a denial, in whichever way the application says it.",
        By(&["pam_stack::no_answer_is_a_denial_however_the_application_says_it"]),
    ),
    Row(
        14,
        "Whoever does not exist is asked, and denied, also where others are let pass.",
        By(&[
            "pam_stack::who_does_not_exist_is_asked_and_denied_also_where_others_are_let_pass",
            "lib::authenticate::tests::whoever_cannot_get_in_is_asked_all_the_same",
            "pam_stack::nullok_passes_over_who_never_enrolled_and_nobody_else",
        ]),
    ),
    Row(
        15,
        "An interrupt at the prompt opens nothing, however forgiving the stack is.",
        By(&[
            "sudo_su::an_interrupt_at_the_prompt_opens_nothing",
            "gate::no_key_signal_or_wait_at_the_prompt_opens_a_shell",
        ]),
    ),
    Row(
        16,
        "An argument that is not understood, and a policy that is named and not there, deny.",
        By(&[
            "pam_stack::arguments_are_understood_or_deny",
            "lib::options::tests::what_is_not_understood_is_an_error",
            "policy::a_policy_file_that_conf_names_has_to_be_there_and_to_be_as_trustworthy",
        ]),
    ),
    Row(
        17,
        "A policy that is broken, or that others can write to, denies; whoever is exempt is passed over, and let in only where that is asked for.",
        By(&[
            "policy::a_policy_that_is_no_file_of_roots_alone_denies_at_once_and_says_why",
            "policy::somebody_exempt_is_not_asked_and_the_log_says_until_when_and_why",
            "policy::only_the_required_groups_need_a_code_and_whoever_has_a_device_is_asked",
        ]),
    ),
    Row(
        18,
        "A stack that lets somebody through without a code is found before they find it.",
        By(&[
            "stack_paths::there_is_a_path_without_a_code_exactly_where_libpam_lets_somebody_through",
            "doctor::stacks_that_are_right_and_wrong",
            "pam-totp::doctor::paths::tests::a_code_that_is_asked_for_and_does_not_count",
        ]),
    ),
    Row(
        19,
        "An empty answer, blanks and zeros open nothing, whether somebody enrolled or not.",
        By(&["pam_stack::an_empty_answer_opens_nothing_whoever_it_is"]),
    ),
    Row(
        20,
        "A module that is missing lets nobody in, and an upgrade has no moment without it.",
        By(&[
            "pam_stack::a_module_that_is_not_there_lets_nobody_in",
            "packages::installed_used_upgraded_and_removed_without_a_moment_without_the_module",
        ]),
    ),
    Row(
        21,
        "Only authentication lets somebody in: no other call of libpam's says yes to anybody or changes a verdict.",
        By(&[
            "pam_stack::an_account_phase_says_yes_to_nobody_and_counts_nothing",
            "pam_stack::setcred_succeeds_whatever_happened_before",
            "artefacts::only_the_entry_points_are_exported",
        ]),
    ),
    Row(
        22,
        "A login without authentication, as cron's, forgets no failure.",
        By(&["pam_stack::an_account_phase_says_yes_to_nobody_and_counts_nothing"]),
    ),
    // ---- Once ----
    Row(
        23,
        "Of any number of logins with one code at the same moment one gets in, by every kind of code.",
        By(&[
            "races::one_of_fifty_gets_in_with_a_time_based_code",
            "races::one_of_fifty_gets_in_with_a_counter_based_code",
            "races::one_of_fifty_gets_in_with_a_scratch_code",
            "system_store::one_of_fifty_gets_in_with_a_time_based_code",
            "system_store::one_of_fifty_gets_in_with_a_counter_based_code",
            "system_store::one_of_fifty_gets_in_with_a_recovery_code",
            "races::without_the_lock_a_code_gets_more_than_one_in",
            "ssh_login::sixteen_sessions_with_one_code_and_one_gets_in",
        ]),
    ),
    Row(
        24,
        "A guess is charged before it is judged: in parallel, and if whoever made it goes away.",
        By(&[
            "throttle::of_guesses_that_are_all_about_to_be_judged_ten_are",
            "throttle::of_a_thousand_guesses_at_once_ten_are_judged",
            "throttle::right_codes_among_the_guesses_do_not_raise_the_budget",
            "throttle::a_guess_costs_the_same_if_its_process_is_killed_before_anybody_learns_the_verdict",
            "lib::verify::tests::the_budget_is_charged_before_anything_is_judged",
        ]),
    ),
    Row(
        25,
        "No step at or below the highest accepted one is accepted, anywhere in the window.",
        By(&[
            "pam_stack::a_step_below_one_that_was_accepted_is_as_used_as_that",
            "lib::verify::tests::no_step_at_or_below_the_highest_accepted_one_is_accepted",
            "lib::verify::tests::a_code_is_accepted_once",
            "pam_stack::a_right_code_gets_in_once",
        ]),
    ),
    Row(
        26,
        "A used code is used however it is spelled.",
        By(&[
            "pam_stack::a_used_code_is_used_however_it_is_spelled",
            "lib::otp::code::tests::digits_are_taken_as_they_are_and_blanks_off",
            "lib::otp::code::tests::anything_else_is_not_a_code",
        ]),
    ),
    Row(
        27,
        "From outside a wrong code, a used one and one that was not judged look the same.",
        By(&["pam_stack::wrong_used_throttled_and_nobodys_codes_look_alike_from_outside"]),
    ),
    Row(
        28,
        "A clock that is wrong denies with its reason, opens nothing, and locks nobody out for good.",
        By(&[
            "sudo_su::time_comes_from_the_clock_and_steps_are_judged_by_it",
            "lib::verify::tests::a_mark_ahead_of_the_clock_denies_and_says_so",
            "lib::verify::tests::a_time_before_the_first_step_does_not_panic",
            "devices::after_a_clock_that_was_ahead_root_accepts_the_present",
            "devices::two_codes_bring_a_device_back_whose_clock_is_off",
            "policy::at_1970_nothing_opens_that_is_over_also_on_a_host_that_knows_no_other_time",
        ]),
    ),
    Row(
        29,
        "How long a comparison takes says nothing of how much of a guess is right.",
        By(&["constant_time::a_guess_takes_as_many_instructions_however_much_of_it_is_right"]),
    ),
    Row(
        30,
        "A recovery code is one code however it is typed, and has its 120 bits when capitals and dashes are gone.",
        By(&[
            "devices::recovery_codes_work_once_each_however_they_are_typed_until_there_are_new_ones",
            "lib::otp::recovery::tests::a_code_is_read_however_it_is_spelled",
            "lib::enrol::tests::recovery_codes_are_different_and_have_120_bits",
        ]),
    ),
    // ---- What cannot be written ----
    Row(
        31,
        "Where nothing can be written nobody gets in, nobody is killed and nothing is left half done.",
        By(&[
            "system_store::limits_on_files_memory_and_descriptors_let_nobody_in_on_a_code_that_is_not_used_up",
            "pam_stack::a_limit_on_file_sizes_denies_and_kills_nobody",
            "pam_stack::a_home_that_cannot_be_written_denies",
            "faults::a_limit_on_file_sizes_does_not_tell_a_right_guess_from_a_wrong_one",
            "system_store::a_store_that_cannot_be_written_to_lets_nobody_in",
            "crash::a_full_btrfs_lets_in_or_denies_with_a_reason_and_then_the_code_still_works",
        ]),
    ),
    Row(
        32,
        "A crash at any moment loses a code at most; none works twice.",
        By(&[
            "crash::a_login_killed_at_any_call_leaves_the_old_record_or_the_new_one_and_a_spent_code_stays_spent",
            "fault_matrix::whatever_call_fails_or_is_the_last_a_code_works_once_and_nothing_is_lost",
            "crash::a_spent_recovery_code_stays_spent",
            "system_store::a_record_that_was_cut_off_anywhere_denies",
        ]),
    ),
    // ---- Guesses ----
    Row(
        33,
        "There are so many guesses a day and no more, over any number of sessions, and their victim is told.",
        By(&[
            "throttle::thirty_guesses_are_judged_a_day",
            "throttle::of_a_thousand_guesses_at_once_ten_are_judged",
            "policy::whoever_gets_in_over_ssh_is_told_once_how_many_codes_failed_and_when",
        ]),
    ),
    Row(
        34,
        "One call is one question, and what a client asks sshd for gives it no more guesses.",
        By(&[
            "throttle::ten_thousand_devices_and_tries_on_a_connection_are_no_more_guesses",
            "lib::authenticate::tests::one_question_one_verdict",
        ]),
    ),
    Row(
        35,
        "Nobody keeps the owner out by typing wrong codes.",
        By(&[
            "throttle::the_owner_gets_in_whatever_strangers_and_neighbours_have_typed",
            "lib::ledger::tests::nobody_can_keep_the_owner_out",
            "examples::of_people_who_come_by_radius_nobody_keeps_out_another",
        ]),
    ),
    // ---- What can be learned ----
    Row(
        36,
        "Prompt, text, delay and time are the same for whoever is unknown, not enrolled, wrong or blocked.",
        By(&[
            "pam_stack::wrong_used_throttled_and_nobodys_codes_look_alike_from_outside",
            "ssh_login::the_prompt_is_the_same_for_who_is_not_enrolled_and_for_who_does_not_exist",
            "pam_stack::a_denial_asks_for_a_delay_and_a_success_does_not",
            "side_channels::a_denial_takes_as_long_whatever_its_reason",
            "side_channels::the_prompt_comes_after_the_same_calls_whoever_it_is_for",
            "lib::store::fleet::tests::whoever_is_asked_costs_as_many_requests_until_then",
        ]),
    ),
    Row(
        37,
        "An answer of any length is denied at once, and none of it is logged.",
        By(&[
            "pam_stack::an_answer_of_any_length_is_denied_at_once",
            "agent_attacks::what_is_too_long_to_be_asked_is_a_denial_and_no_outage",
            "enrolment::a_prompt_answered_with_64_kib_stores_nothing",
        ]),
    ),
    Row(
        38,
        "What sshd types in the place of whom it refuses is no guess, and the log calls it by its name.",
        By(&[
            "throttle::what_cannot_be_a_code_costs_where_it_came_from_and_not_whom_it_is_about",
            "ssh_login::the_prompt_is_the_same_for_who_is_not_enrolled_and_for_who_does_not_exist",
        ]),
    ),
    Row(39, "Who it is, is asked anew at each call.", By(&["guest::each_call_asks_anew_who_it_is"])),
    // ---- Environment and names ----
    Row(
        40,
        "The environment, the limits and the umask of whoever calls a setuid program change nothing.",
        By(&["sudo_su::the_callers_environment_and_limits_change_nothing"]),
    ),
    Row(
        41,
        "What is said about keys counts from sshd alone.",
        By(&[
            "shared_accounts::what_su_and_sudo_are_told_about_keys_is_ignored",
            "shared_accounts::what_a_users_environment_says_about_keys_is_ignored_at_sshd",
        ]),
    ),
    Row(
        42,
        "No name is resolved: an exemption is for addresses, and never for this machine's own.",
        By(&[
            "guest::no_name_is_resolved_and_no_network_is_used",
            "policy::an_exemption_is_for_the_people_places_and_services_that_it_names",
            "lib::source::tests::a_name_is_in_no_network",
            "lib::source::tests::one_source_has_one_key",
        ]),
    ),
    Row(
        43,
        "Two spellings of a name are one person, with one secret, one mark and one budget.",
        By(&["guest::two_spellings_of_a_name_are_one_person", "guest::each_call_asks_anew_who_it_is"]),
    ),
    Row(
        44,
        "Nobody is who they say in what they can write themselves.",
        By(&["guest::nobody_is_who_they_say_in_what_they_can_write"]),
    ),
    Row(
        45,
        "Whether the caller's code counts or the target's is said in the policy, and the caller is who the kernel says.",
        By(&[
            "caller::the_code_is_that_of_who_asks",
            "caller::a_login_uid_says_nothing_of_anybody_but_root",
            "caller::root_is_who_has_logged_in",
            "sudo_su::su_asks_for_the_targets_code",
        ]),
    ),
    // ---- Secrets and memory ----
    Row(
        46,
        "Nothing typed and no secret is logged, or left in memory.",
        By(&[
            "guest::nothing_typed_and_no_secret_is_left_in_memory",
            "pam_stack::nothing_typed_and_no_secret_is_logged_not_even_with_debug",
            "pam_stack::what_others_choose_cannot_forge_a_log_line",
            "must-not-compile::src/secret.rs",
        ]),
    ),
    Row(
        47,
        "A new secret has 160 bits from the kernel, and a short one is remarked upon or refused.",
        By(&[
            "lib::enrol::tests::secrets_are_new_and_have_160_bits_or_more",
            "pam_stack::a_short_secret_works_and_is_remarked_upon",
            "lib::authenticate::tests::short_secrets_and_scratch_codes_can_be_refused",
        ]),
    ),
    Row(
        48,
        "A login starts no program and no thread, whatever the names in it are.",
        By(&["guest::no_program_and_no_thread_is_started_whatever_the_names_are"]),
    ),
    Row(
        49,
        "A panic is a denial, and a login leaves nothing behind in the program that asked.",
        By(&[
            "lib::pam::entry::tests::a_panic_is_a_denial_and_prints_nothing",
            "lib::pam::entry::tests::a_missing_handle_is_a_denial",
            "guest::logins_of_every_kind_one_after_the_other_leave_nothing_in_their_process",
            "pam_stack::ten_thousand_logins_leave_nothing_behind",
            "guest::memcheck_finds_nothing",
            "artefacts::the_module_is_hardened_and_needs_libpam_and_libc_alone",
        ]),
    ),
    Row(
        50,
        "Whatever fails, the program that asked lives: a locked screen stays locked.",
        By(&[
            "guest::whatever_fails_the_program_that_asked_lives",
            "pam_stack::a_limit_on_file_sizes_denies_and_kills_nobody",
        ]),
    ),
];

const RULES: [Row; 32] = [
    // ---- Verdicts and stores ----
    Row(
        1,
        "A verdict comes out of the commit that it rests on, once, and from nowhere else.",
        By(&[
            "must-not-compile::src/verify/decision.rs",
            "lib::verify::tests::a_failed_commit_gives_no_verdict",
            "lib::store::home::tests::the_home_store_conforms",
            "lib::store::system::tests::the_system_store_conforms",
        ]),
    ),
    Row(
        2,
        "A record is on the disk under its name before the verdict is out, also where the disk is full; its sibling is never read.",
        By(&[
            "system_store::the_new_record_is_on_disk_before_it_has_its_name_and_the_name_before_the_verdict",
            "crash::a_login_killed_at_any_call_leaves_the_old_record_or_the_new_one_and_a_spent_code_stays_spent",
            "crash::a_thousand_logins_on_a_full_ext4_each_succeed_and_use_their_code_up",
            "system_store::without_the_lock_a_code_gets_more_than_one_in",
            "system_store::a_sibling_is_never_taken_for_a_record_that_is_not_there",
            "crash::a_removed_device_stays_removed_and_its_secret_is_nowhere",
        ]),
    ),
    Row(
        3,
        "No process of a user holds up another's login.",
        By(&[
            "throttle::two_thousand_su_that_are_stopped_anywhere_hold_up_no_login",
            "throttle::a_guess_that_is_stopped_after_any_of_its_calls_holds_up_no_login",
            "system_store::whoever_is_stopped_with_a_right_code_holds_the_lock_of_that_person_and_of_nobody_else",
            "pam_stack::a_lock_that_is_never_given_back_denies_after_a_while",
        ]),
    ),
    Row(
        4,
        "Absence is never permission: whoever ever had a device is not let pass without one until root says so.",
        By(&[
            "devices::who_ever_had_a_device_is_not_let_pass_without_until_root_says_so",
            "devices::an_emptied_store_or_a_policy_that_is_gone_lets_nobody_pass",
            "devices::a_name_that_is_given_to_somebody_else_is_somebody_else",
            "system_store::what_is_no_store_lets_nobody_in_and_nobody_pass",
        ]),
    ),
    Row(
        5,
        "A denial is an authentication failure, and an outage is told from it and lets nobody in either.",
        By(&[
            "devices::before_there_is_a_store_nobody_gets_in_and_nobody_is_blamed",
            "agent::an_agent_that_is_absent_hung_or_lying_denies_in_time",
            "pam-totp::doctor::paths::tests::what_modules_can_answer_counts",
        ]),
    ),
    Row(
        6,
        "Nothing that depends on the verdict is shown before the session.",
        By(&[
            "policy::nothing_is_shown_before_the_session_whatever_the_verdict_is",
            "policy::the_notice_waits_for_a_session_that_is_not_silent",
            "pam_stack::wrong_used_throttled_and_nobodys_codes_look_alike_from_outside",
        ]),
    ),
    Row(
        7,
        "The mark of used steps is raised for every device that a code matches, by enrolment and import too, and is lowered by root alone.",
        By(&[
            "lib::verify::tests::a_code_that_is_right_for_two_devices_is_used_up_for_both",
            "devices::enrol_confirm_log_in_once",
            "import::time_based_codes_of_now_count_as_used_and_later_ones_work",
            "devices::two_codes_bring_a_device_back_whose_clock_is_off",
            "devices::after_a_clock_that_was_ahead_root_accepts_the_present",
        ]),
    ),
    Row(
        8,
        "What is over stays over when a clock is set back, and no clock brings a budget back.",
        By(&[
            "policy::an_exemption_that_is_over_is_void_and_a_clock_set_back_does_not_revive_it",
            "throttle::one_clock_alone_brings_no_budget_back",
            "throttle::another_boot_brings_no_budget_back_until_it_has_lasted_as_long",
            "policy::at_1970_nothing_opens_that_is_over_also_on_a_host_that_knows_no_other_time",
        ]),
    ),
    // ---- Counting ----
    Row(
        9,
        "What cannot be a code costs where it came from, and not whom it is about.",
        By(&[
            "throttle::what_cannot_be_a_code_costs_where_it_came_from_and_not_whom_it_is_about",
            "lib::authenticate::tests::what_cannot_be_a_code_costs_the_source_and_not_the_person",
        ]),
    ),
    Row(
        10,
        "Strangers never block a source that the owner was let in from, and a success takes back its own charge alone.",
        By(&[
            "throttle::the_owner_gets_in_whatever_strangers_and_neighbours_have_typed",
            "lib::ledger::tests::a_source_is_known_for_thirty_days",
            "lib::authenticate::tests::guesses_have_a_budget_and_a_success_takes_back_its_own_charge_alone",
        ]),
    ),
    Row(
        11,
        "The table of failures has an end, and filling it takes nobody's row away.",
        By(&[
            "throttle::a_hundred_thousand_sources_and_a_full_disk_leave_the_limit_of_a_person_as_it_is",
            "lib::ledger::tests::with_all_sources_taken_the_rows_of_people_still_bind",
            "lib::ledger::tests::people_for_whom_no_row_is_left_share_one_and_are_bound_by_it",
            "lib::ledger::tests::nobody_takes_the_place_of_others_marks",
        ]),
    ),
    Row(
        12,
        "A hundred wrong codes in a row disable a device until root says otherwise.",
        By(&["throttle::the_hundredth_wrong_code_in_a_row_disables_the_device_until_root_says_otherwise"]),
    ),
    // ---- Who it is ----
    Row(
        13,
        "Whose code is asked for follows from one thing that cannot be forged, and where that says nothing, from nothing else.",
        By(&[
            "shared_accounts::what_names_nobody_is_denied_behind_the_same_prompt",
            "shared_accounts::two_keys_or_none_at_a_real_sshd_are_nobodys",
            "shared_accounts::a_certificate_names_its_holder_by_its_key_id",
            "caller::a_login_uid_says_nothing_of_anybody_but_root",
            "lib::identity::login_key::tests::nothing_else_names_anybody",
        ]),
    ),
    Row(
        14,
        "A new key on an account that has a device needs a ticket, or somebody who vouches with theirs.",
        By(&[
            "shared_accounts::ten_people_with_ten_keys_and_ten_phones",
            "shared_accounts::guesses_with_ever_new_keys_are_those_of_one",
            "shared_accounts::without_enrolment_inside_a_login_a_new_key_has_no_way_in",
        ]),
    ),
    Row(
        15,
        "Whoever has a device is asked, and a group that nobody can tell about frees nobody.",
        By(&[
            "policy::only_the_required_groups_need_a_code_and_whoever_has_a_device_is_asked",
            "lib::policy::exempt::tests::an_unknown_group_exempts_nobody_and_frees_nobody",
            "lib::system::groups::tests::a_primary_group_counts_and_an_unknown_one_is_unknown",
        ]),
    ),
    Row(
        16,
        "What is said of `su` and `sudo` holds for their login shells too, and `check` says what holds where.",
        By(&[
            "policy::what_su_and_sudo_are_told_holds_for_their_login_shells_unless_those_are_told_otherwise",
            "lib::policy::tests::su_and_sudo_cover_their_login_shells_unless_those_have_their_own",
            "policy::check_shows_what_holds_at_each_service_who_says_so_and_what_that_leaves_to_guessers",
        ]),
    ),
    // ---- Enrolment ----
    Row(
        17,
        "Without a key that sshd has accepted, or a ticket, nobody is shown a secret.",
        By(&[
            "enrolment::without_a_key_nobody_is_shown_a_secret",
            "enrolment::what_sshd_does_not_say_plainly_shows_nothing",
            "enrolment::in_no_place_where_a_password_is_asked_along_or_nobody_is",
        ]),
    ),
    Row(
        18,
        "Recovery codes are shown before the code that stores them is asked for, and are stored as hashes.",
        By(&[
            "enrolment::the_first_login_shows_a_qr_code_and_ends_with_a_device",
            "lib::record::recovery::tests::a_salt_makes_the_same_code_look_different",
            "lib::enrol::tests::recovery_codes_are_different_and_have_120_bits",
        ]),
    ),
    Row(
        19,
        "A ticket is good for one person and one device, and wrong ones are charged.",
        By(&[
            "enrolment::a_ticket_is_good_for_one_device",
            "enrolment::wrong_tickets_are_charged",
            "enrolment::of_two_sessions_with_one_ticket_one_wins",
            "enrolment::a_ticket_that_nobody_can_use_any_more_opens_nothing",
        ]),
    ),
    Row(
        20,
        "The program has no rights but its caller's, and nobody changes their devices without a code of one.",
        By(&[
            "self_service::nothing_spares_anybody_the_code",
            "gate::it_is_never_setuid",
            "artefacts::install_and_uninstall_put_files_where_they_belong",
        ]),
    ),
    // ---- Files, names, logs ----
    Row(
        21,
        "Links are followed above a home where root made them, and nowhere else; what is root's is root's from its first byte on.",
        By(&[
            "pam_stack::links_above_the_home_are_roots_business_and_below_it_nobodys",
            "pam_stack::a_file_with_a_second_name_works_and_is_remarked_upon",
            "system_store::what_is_roots_is_roots_from_its_first_byte_on",
            "throttle::a_ledger_is_made_by_root_for_root_with_all_its_blocks",
            "pam_stack::the_file_is_rewritten_faithfully",
            "lib::store::home::tests::mode_stays_and_a_file_that_changed_meanwhile_stays_too",
        ]),
    ),
    Row(
        22,
        "A name that no user database vouches for has to look like one.",
        By(&[
            "pam_stack::one_user_can_hold_the_files_of_people_who_have_no_account",
            "system_store::odd_names_have_records_of_their_own",
        ]),
    ),
    Row(
        23,
        "Nobody writes a line of the log, or a field in one, by choosing a name.",
        By(&[
            "pam_stack::what_others_choose_cannot_forge_a_log_line",
            "fail2ban::a_user_name_that_looks_like_a_denial_bans_nobody_else",
            "lib::fact::tests::a_value_cannot_forge_a_field_or_a_line",
        ]),
    ),
    Row(
        24,
        "The signal of a file that is too large reaches nobody, and where a file cannot be locked the host is.",
        By(&[
            "pam_stack::a_limit_on_file_sizes_denies_and_kills_nobody",
            "guest::ids_groups_umask_signals_and_directory_are_afterwards_what_they_were",
            "faults::a_file_system_without_locks_is_locked_under_run",
        ]),
    ),
    Row(
        25,
        "A policy is whole, root's and complete, or it denies.",
        By(&[
            "policy::a_policy_that_was_cut_short_denies_or_asks_for_no_less",
            "policy::a_policy_that_was_in_use_and_is_gone_denies",
            "policy::a_policy_that_is_no_file_of_roots_alone_denies_at_once_and_says_why",
            "policy::install_replaces_a_policy_by_rename_or_leaves_it_as_it_is",
            "lib::policy::exempt::tests::each_key_of_an_exemption_has_to_be_there",
        ]),
    ),
    Row(
        26,
        "No exemption is for what comes from this machine itself, or from what many share; grace ends with what it rests on.",
        By(&[
            "policy::over_sshd_only_somebody_from_another_machine_is_exempt",
            "lib::policy::exempt::tests::any_network_is_not_this_machine_itself",
            "policy::an_exemption_is_for_the_people_places_and_services_that_it_names",
            "policy::grace_is_for_the_person_the_service_and_the_source_of_the_last_login",
            "policy::grace_ends_with_its_time_with_three_failures_and_with_another_secret",
        ]),
    ),
    Row(
        27,
        "Where the policy asks for another module's ways, each login's line says so.",
        By(&[
            "policy::what_is_done_as_the_c_module_does_says_so_at_each_login",
            "throttle::as_the_c_module_does_it_nothing_is_counted_unless_somebody_asks_for_it",
            "lib::policy::tests::the_ledger_is_off_with_google_unless_somebody_asks_for_it",
        ]),
    ),
    // ---- Agent and fleet ----
    Row(
        28,
        "The agent waits for nobody at a prompt, and a login that was put away is good once, for whoever began it.",
        By(&[
            "agent::two_hundred_people_may_sit_at_their_prompts_while_another_logs_in",
            "agent::a_login_that_was_put_away_is_good_for_whoever_began_it_unaltered_and_once",
            "agent::the_agent_decides_what_the_module_would",
        ]),
    ),
    Row(
        29,
        "Of whoever is not root the agent believes the code alone, and of a trusted caller whose it is.",
        By(&[
            "agent::of_who_is_not_root_only_the_code_counts",
            "agent::a_server_that_is_not_root_asks_about_the_people_of_its_groups",
            "agent_attacks::who_is_refused_does_not_say_from_where_and_at_which_service",
            "agent_attacks::uids_that_nobody_has_keep_no_places_from_others",
        ]),
    ),
    Row(30, "An older record that somebody puts back is refused.", By(&["fleet::a_record_put_back_is_refused"])),
    Row(
        31,
        "A host that is no longer trusted takes the secrets with it that it could read: its people enrol anew.",
        By(&[
            "fleet::revoking_a_host_marks_its_people",
            "lib::agent::wire::tests::another_version_is_told_from_nonsense",
        ]),
    ),
    // ---- Tools as root ----
    Row(
        32,
        "What root's tools look at cannot lead them out of it or stop them, and they undo what they did and nothing else.",
        By(&[
            "doctor::a_tree_full_of_traps_is_left_and_judged",
            "doctor::names_paths_and_values_cannot_move_the_cursor",
            "setup::a_file_that_somebody_else_changed_is_not_restored",
            "setup::after_a_reboot_the_unit_rolls_back_at_once",
            "setup::from_a_fresh_debian_to_key_and_code_and_back",
            "packages::installed_used_upgraded_and_removed_without_a_moment_without_the_module",
        ]),
    ),
];

/// The two tables with their titles.
const TABLES: [(&str, &[Row]); 2] = [("What goes wrong in second factors", &CLASSES), ("Our rules", &RULES)];

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.iter().flat_map(|(_, rows)| *rows)
}

fn named() -> impl Iterator<Item = &'static str> {
    rows()
        .flat_map(|Row(.., held)| match held {
            By(tests) => *tests,
            Never(_) => &[],
        })
        .copied()
}

#[test]
fn every_number_is_there_once_and_few_do_without_a_test() {
    for (title, rows) in TABLES {
        let numbers: Vec<usize> = rows.iter().map(|row| row.0.into()).collect();
        assert_eq!(numbers, (1..=rows.len()).collect::<Vec<_>>(), "{title}");
    }
    let without = rows().filter(|Row(.., held)| matches!(held, Never(_))).count();
    assert!(without <= MOST_WITHOUT, "{without} rows have no test");
    for Row(number, promise, held) in rows() {
        let (sentences, tests) = match held {
            By(tests) => (vec![*promise], tests.len()),
            Never(why) => (vec![*promise, *why], 1),
        };
        assert!(tests > 0, "{number}: no test");
        for sentence in sentences {
            assert!(
                sentence.ends_with('.') && sentence.matches(". ").count() == 0,
                "{number}: one sentence: {sentence}"
            );
            assert!(!sentence.contains('|') && !sentence.contains("CVE"), "{number}: {sentence}");
        }
    }
}

#[test]
fn every_test_that_holds_a_promise_is_there_and_runs() {
    let tests = tests();
    assert!(tests.len() > 700, "only {} tests are found: does this one still read the sources?", tests.len());
    let mut to_come = BTreeSet::from_iter(TO_COME.iter().copied());
    for name in named() {
        match tests.get(name) {
            // Whoever wrote it takes it off the list.
            Some(state) => assert!(*state == State::Runs && !to_come.contains(name), "{name}: {state:?}"),
            None => assert!(to_come.remove(name), "there is no test {name}"),
        }
    }
    assert!(to_come.is_empty(), "named by no row, or there already: {to_come:?}");
}

#[test]
fn the_page_of_promises_is_made_from_the_table() {
    let path = project().join("docs/promises.md");
    let page = page();
    if std::env::var_os("PAM_TOTP_WRITE").is_some_and(|value| value == "1") {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/promises.md is not what tests/promises.rs says: run `{REWRITE}`");
}

// ---- The page ----

fn page() -> String {
    let mut page = format!(
        "# Promises\n\n\
         What can go wrong in second factors and must not go wrong here, and the rules that the design set itself; each as a promise,\n\
         and the tests that hold it. The first test of a row is the one that is named after it. Those through real programs are\n\
         named by their file in `tests/`; the others have `lib::` (in `src/`), `pam-totp::` (in `src/bin/pam-totp/`) or\n\
         `must-not-compile::` (an example in a file's documentation that the compiler has to refuse) in front.\n\n\
         Made by `tests/promises.rs`, which fails where a test is missing or does not run, and where this page is not what it says:\n\
         `{REWRITE}` writes it.\n"
    );
    for (title, rows) in TABLES {
        page += &format!("\n## {title}\n\n| | promise | held by |\n|---|---|---|\n");
        for Row(number, promise, held) in rows {
            let held = match held {
                By(tests) => tests.iter().map(|test| shown(test)).collect::<Vec<_>>().join(", "),
                Never(why) => format!("cannot apply: {why}"),
            };
            page += &format!("| {number} | {promise} | {held} |\n");
        }
    }
    page
}

fn shown(test: &str) -> String {
    let to_come = if TO_COME.contains(&test) { " (to come)" } else { "" };
    format!("`{test}`{to_come}")
}

// ---- The tests that there are ----

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Runs,
    IsIgnored,
    /// Its name, and no `#[test]` above it.
    IsNoTest,
}

/// All tests by their full names.
fn tests() -> BTreeMap<String, State> {
    let mut tests = BTreeMap::new();
    // This program knows its own.
    let this = std::env::current_exe().unwrap();
    let list = |more: &[&str]| output_of(Command::new(&this).args(["--list", "--format", "terse"]).args(more));
    for (arguments, state) in [(&[][..], State::Runs), (&["--ignored"], State::IsIgnored)] {
        let names = list(arguments);
        let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
        tests.extend(names.map(|name| (name.to_owned(), state)));
    }
    let src = project().join("src");
    Module { file: &src.join("lib.rs"), below: &src, path: "lib" }.read(&mut tests);
    let program = src.join("bin/pam-totp");
    Module { file: &program.join("main.rs"), below: &program, path: "pam-totp" }.read(&mut tests);
    must_not_compile(&src, &src, &mut tests);
    tests
}

/// A module: its file, the directory of the modules below it, and its name.
struct Module<'a> {
    file: &'a Path,
    below: &'a Path,
    path: &'a str,
}

impl Module<'_> {
    /// Follows the modules as the compiler does, by lines as rustfmt writes them.
    fn read(&self, tests: &mut BTreeMap<String, State>) {
        let text = fs::read_to_string(self.file).unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        let (mut attributes, mut inside) = (Vec::new(), None);
        for line in text.lines() {
            let code = line.trim_start();
            if line == "}" {
                inside = None;
            }
            if code.starts_with("#[") {
                attributes.push(code);
                continue;
            }
            if let Some(name) = module_name(line) {
                // What the tests of `make test` are built without, and what is no test of its own.
                let is_not_ours =
                    |line: &&str| ["cfg(not(", "abi-check", "#[path"].iter().any(|word| line.contains(word));
                let is_built = !attributes.iter().any(is_not_ours);
                match (is_built, line.ends_with(';')) {
                    (true, true) => self.module_below(name, tests),
                    (true, false) => inside = Some(name),
                    (false, _) => {}
                }
            } else if let Some(name) = function_name(code) {
                let module = inside.map_or(self.path.to_owned(), |inside| format!("{}::{inside}", self.path));
                let has = |attribute: &str| attributes.iter().any(|line| line.starts_with(attribute));
                let state = match (has("#[test]"), has("#[ignore")) {
                    (true, false) => State::Runs,
                    (true, true) => State::IsIgnored,
                    (false, _) => State::IsNoTest,
                };
                tests.insert(format!("{module}::{name}"), state);
            }
            // A comment between an attribute and its item changes nothing.
            if !code.starts_with("//") {
                attributes.clear();
            }
        }
    }

    fn module_below(&self, name: &str, tests: &mut BTreeMap<String, State>) {
        let below = self.below.join(name);
        let (beside, inside) = (self.below.join(format!("{name}.rs")), below.join("mod.rs"));
        let file = if beside.exists() { beside } else { inside };
        Module { file: &file, below: &below, path: &format!("{}::{name}", self.path) }.read(tests);
    }
}

/// `pub mod name;` or `mod name {`, where nothing stands before it.
fn module_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub(crate) ").or(line.strip_prefix("pub(super) ")).unwrap_or(line);
    let line = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod ")?;
    line.strip_suffix(';').or(line.strip_suffix(" {"))
}

fn function_name(code: &str) -> Option<&str> {
    Some(code.strip_prefix("fn ")?.split_once('(')?.0)
}

/// Files whose documentation has examples that must not compile.
fn must_not_compile(src: &Path, directory: &Path, tests: &mut BTreeMap<String, State>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            must_not_compile(src, &path, tests);
        } else if fs::read_to_string(&path).unwrap().contains("\n/// ```compile_fail") {
            let path = path.strip_prefix(src).unwrap().display();
            tests.insert(format!("must-not-compile::src/{path}"), State::Runs);
        }
    }
}
