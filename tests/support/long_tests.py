"""Which tests are left to `make proof` only because `make test` must end within five minutes.

They get the marker `long`. `make proof` runs them in the same way as `make test` runs the others,
and so do the runs over the Data API and on other servers. Where a test tries every step, every kind
of stage or every fault, some of its cases stay in `make test`.
"""

import re

# Names by file, from tests/ on: all cases of a test, or one; `*` is all of a file.
LONG: dict[str, tuple[str, ...]] = {
    "bench/test_grade.py": (
        "test_a_cache_that_is_none_fails_and_is_timed_all_the_same[a slow cache-failing3]",
        "test_a_cache_that_is_none_fails_and_is_timed_all_the_same[always says hit-failing4]",
        "test_a_cache_that_is_none_fails_and_is_timed_all_the_same[no write-through by xp*",
        "test_a_note_says_what_was_inserted",
        "test_a_service_that_tells_nothing_is_judged_by_time",
        "test_a_url_may_leave_its_scheme_out",
        "test_rows_that_cannot_be_removed_are_noted",
        "test_the_rows_of_a_note_are_removed_later_and_no_others",
        "test_times_are_told_over_both_connections_and_within_the_service",
    ),
    "cache/test_both_down.py": (
        "test_a_container_that_starts_later_does_not_go_by_what_was_retired[once it is used again]",
        "test_a_write_that_a_reader_misses_is_not_acknowledged[stays away]",
        "test_who_invalidates_without_redis_leaves_the_hint_once_redis_is_back",
    ),
    "cache/test_cache_down.py": (
        "test_another_process_that_writes_meanwhile_waits_for_the_same_second[hanging]",
    ),
    "cache/test_races.py": (
        "test_a_writer_notices_by_two_clocks_that_it_slept[its clock was set back]",
    ),
    "cache/test_redis_cluster.py": (
        "test_a_killed_master_changes_no_answer_and_is_used_again_when_it_is_back[1]",
    ),
    "cache/test_redis_mismatch.py": (
        "test_a_mismatch_is_named_in_the_health_report_and_in_the_log[plain server over rediss://]",
    ),
    "cache/test_topologies.py": (
        "*[cluster with TLS and password*",
        "test_a_large_batch_is_filled_and_read[TLS-10000]",
        "test_a_large_batch_is_filled_and_read[cluster-10000]",
        "test_values_that_all_share_a_bucket_are_filled_and_read[TLS]",
        "test_values_that_all_share_a_bucket_are_filled_and_read[user and password]",
    ),
    "credentials/test_cache.py": ("*[cluster]",),
    "db/test_asleep.py": (
        "test_a_host_that_takes_no_connection_is_not_waited_for",
        "test_a_write_with_an_idempotency_key_waits_once",
        "test_one_that_sleeps_on_is_a_503_that_says_so",
    ),
    "db/test_data_api_faults.py": (
        "test_a_change_happens_or_not_and_what_is_answered_is_true[insert-cut before]",
    ),
    "db/test_data_api_limits.py": (
        "test_a_thousand_of_the_longest_rows_go_in_and_out[control]",
        "test_an_answer_just_under_1_mib_is_one_call_and_one_just_over_is_cut[xp]",
    ),
    "db/test_database_down.py": (
        "test_a_silent_database_is_a_503_in_time_and_works_when_it_is_back[cold]",
        "test_a_table_that_somebody_changes_is_a_503_that_wrote_nothing[cold lookup]",
        "test_a_table_that_somebody_changes_is_a_503_that_wrote_nothing[delete]",
        "test_a_table_that_somebody_changes_is_a_503_that_wrote_nothing[half cached read]",
        "test_a_table_that_somebody_changes_is_a_503_that_wrote_nothing[insert]",
        "test_a_table_that_somebody_changes_is_a_503_that_wrote_nothing[mixed write]",
        "test_a_table_that_somebody_changes_is_a_503_that_wrote_nothing[write once]",
    ),
    "db/test_declarations.py": ("test_a_batch_is_encoded_as_each_row_by_itself_would_be",),
    "db/test_driver.py": ("test_rows_are_those_of_the_driver",),
    "dependencies/test_lock.py": (
        "test_a_file_with_the_locked_hash_is_installed_and_another_is_refused",
        "test_a_source_archive_is_not_built_even_with_the_locked_hash",
    ),
    "handlers/test_api_auth.py": (
        "test_every_route_that_works_asks_who_calls_and_shallow_health_does_not[iam-asked1]",
        "test_every_route_that_works_asks_who_calls_and_shallow_health_does_not[none-asked0]",
        "test_no_api_is_open_because_a_setting_was_forgotten[-API_AUTH is empty]",
    ),
    "handlers/test_health.py": ("test_a_server_that_does_not_answer_is_named[unroutable_port]",),
    "infra/test_adopt.py": (
        "test_a_filled_table_stays_and_the_services_own_are_made",
        "test_the_sql_is_printed_where_the_database_cannot_be_reached",
        "test_what_was_answered_is_kept_where_the_questions_end_early",
    ),
    "infra/test_deploy_failures.py": (
        "test_a_config_that_is_no_json_is_named_with_the_place",
        "test_a_schedule_of_a_deploy_that_died_half_way_is_removed",
        "test_a_stage_that_lacks_something_is_named_with_the_place",
        "test_a_stage_without_its_own_account_is_not_deployed",
        "test_configure_without_a_stack_says_what_comes_first",
        "test_deployed_functions_are_not_taken_out_of_the_network",
        "test_no_stage_is_open_because_a_setting_was_forgotten[-dev]",
        "test_no_stage_is_open_because_a_setting_was_forgotten[-prod]",
        "test_no_stage_is_open_because_a_setting_was_forgotten[None0-dev]",
        "test_no_stage_is_open_because_a_setting_was_forgotten[None1-dev]",
        "test_no_stage_is_open_because_a_setting_was_forgotten[None1-prod]",
        "test_no_stage_is_open_because_a_setting_was_forgotten[iam -dev]",
        "test_no_stage_is_open_because_a_setting_was_forgotten[iam -prod]",
        "test_the_apis_own_function_does_not_open_prod",
        "test_without_a_region_the_first_step_is_told",
    ),
    "infra/test_infra.py": ("test_the_template_is_valid_for_every_kind_of_stage",),
    "infra/test_wheels.py": ("test_chalice_packages_the_wheels_that_were_compared_with_the_lock",),
    "ingest/test_ingest.py": (
        "test_a_file_whose_columns_stand_in_another_order_can_be_declared_so[big-aurora]",
        "test_a_refused_row_in_the_middle_is_accounted_for[big]",
        "test_the_first_rows_are_told_as_a_read_answers_them[False-big-aurora]",
        "test_the_first_rows_are_told_as_a_read_answers_them[False-big-mysql]",
        "test_the_first_rows_are_told_as_a_read_answers_them[True-big-aurora]",
        "test_without_versions_an_upload_that_is_overwritten_at_any_step_is_loaded_as_it_was_or_skipped[aurora]",
        "test_without_versions_an_upload_that_is_overwritten_at_any_step_is_loaded_as_it_was_or_skipped[big]",
    ),
    "ingest/test_ingest_data_api.py": (
        "test_a_fault_in_the_middle_of_a_file_leaves_all_of_it_or_nothing[cut after-from then on]",
        "test_a_file_of_many_statements_is_loaded_once",
    ),
    "ingest/test_ingest_faults.py": (
        "test_a_file_made_to_hurt_is_refused_in_constant_memory[3 MB of blank lines]",
        "test_a_file_made_to_hurt_is_refused_in_constant_memory[a line of 100 MB]",
        "test_a_file_made_to_hurt_is_refused_in_constant_memory[a row of 100 MB that never ends]",
        "test_a_file_made_to_hurt_is_refused_in_constant_memory[a zip bomb]",
        "test_memory_is_flat_however_many_rows_and_refused_rows_a_file_has",
    ),
    "ingest/test_ingest_once.py": (
        "test_a_lost_answer_to_the_commit_is_an_error_and_the_next_delivery_finds_out[before-6000]",
        "test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next"
        "[aurora-6000-lines merged]",
        "test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next"
        "[mysql-40-fences sent]",
        "test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next[mysql-40-told]",
        "test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next"
        "[mysql-6000-about to commit]",
        "test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next"
        "[mysql-6000-about to tell]",
        "test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next"
        "[mysql-6000-upload claimed]",
        "test_of_two_files_with_the_same_ids_one_is_there_whole[6000]",
        "test_twelve_deliveries_from_four_processes_load_once",
        "test_what_a_second_delivery_acknowledges_every_reader_sees[6000]",
        "test_without_versions_a_content_that_comes_back_is_loaded_once_for_each_upload",
    ),
    "ingest/test_ingest_schema.py": (
        "test_an_id_that_would_use_up_the_others_refuses_a_file[big-aurora-]",
        "test_an_id_that_would_use_up_the_others_refuses_a_file[big-aurora-by a temporary table]",
        "test_an_id_that_would_use_up_the_others_refuses_a_file[big-mysql-by a temporary table]",
    ),
    "local/test_data_api_limits.py": ("test_formatted_records_have_at_most_10_megabytes",),
    "local/test_events.py": (
        "test_a_refused_invalidation_fails_with_the_words_of_the_service",
        "test_make_employees_prints_their_number_and_the_list",
        "test_make_invalidate_shows_the_service_the_rows_of_another_writer",
        "test_make_invoke_prints_the_answer_of_each_function_as_json",
        "test_make_invoke_says_why_a_function_fails",
        "test_make_invoke_takes_names_as_names",
    ),
    "local/test_local.py": (
        "test_a_second_run_says_that_the_first_serves_and_down_ends_that",
        "test_a_wrong_setting_ends_the_start_with_a_line_that_names_it[*-up]",
        "test_clean_removes_what_make_made_and_nothing_else",
        "test_data_survives_down_and_up",
        "test_down_ends_what_a_killed_run_left_behind",
        "test_run_ends_when_the_make_around_it_is_killed",
        "test_run_leaves_the_servers_of_make_up_running",
        "test_run_passes_over_the_usual_port_when_it_is_taken_and_ends_when_it_is_terminated",
        "test_run_works_after_a_killed_one_and_ends_what_that_left_behind",
        "test_up_twice_leaves_the_servers_and_a_private_settings_file",
    ),
    "local/test_local_run.py": ("*",),
    "local/test_local_s3.py": (
        "test_a_function_that_dies_is_replaced",
        "test_a_moto_that_sends_events_in_another_way_is_refused_at_the_start[del *",
        "test_a_moto_that_sends_events_in_another_way_is_refused_at_the_start[models.*",
        "test_an_event_that_fails_is_tried_three_times_and_then_named",
        "test_puts_of_a_key_at_the_same_time_lose_no_version_and_keep_their_order",
        "test_ranges_of_a_run_go_to_their_function_two_at_a_time",
        "test_sequencers_go_on_rising_when_the_server_is_started_again",
    ),
    "local/test_local_threads.py": ("*",),
    "local/test_replace_server.py": ("test_a_port_that_is_taken_is_told_with_words",),
    "local/test_sync.py": ("*",),
    "local/test_upload.py": (
        "test_a_file_of_any_ending_gets_a_result[heroes.CSV-560]",
        "test_a_file_of_any_ending_gets_a_result[notes.txt-561]",
        "test_make_upload_counts_on_a_terminal",
        "test_make_upload_says_where_refused_rows_lie",
        "test_make_upload_shows_the_first_ten_rejected_rows_with_their_reasons",
        "test_make_upload_takes_the_table_by_name",
        "test_seed_rows_are_uploaded_for_empty_tables_only",
        "test_seed_rows_that_cannot_be_loaded_are_an_error_and_leave_nothing_running",
        "test_upload_and_invalidate_know_the_table_of_the_service",
    ),
    "model/test_many.py": (
        "test_no_ingredient_can_be_left_out[all_judge]",
        "test_no_ingredient_can_be_left_out[lift_all]",
        "test_no_ingredient_can_be_left_out[marker]",
        "test_no_ingredient_can_be_left_out[one_transaction]",
    ),
    "rows/test_idempotency.py": ("test_another_key_is_another_write[dataapi]",),
    "rows/test_increment.py": ("test_increments_at_the_same_time_are_all_counted[dataapi]",),
    "rows/test_same_bytes.py": (
        "test_employees_by_any_text",
        "test_heroes_by_xp",
        "test_replaced_heroes",
    ),
    "rows/test_write_behind.py": ("test_many_at_once_all_count[dataapi]",),
    "sync/test_apply_increments.py": (
        "test_a_run_adds_them_to_the_row_once[dataapi]",
        "test_processes_that_count_while_runs_are_killed_read_exactly_what_they_added",
        "test_what_is_forgotten_of_a_row_counts_no_more_when_its_totals_come_back[dataapi]",
    ),
    "sync/test_fan_out.py": (
        "test_a_function_that_is_killed_at_any_step_is_called_again[before]",
        "test_a_function_that_slept_while_a_new_run_began_writes_nothing[to_cache]",
        "test_the_second_run_finds_its_ranges_and_splits_those_that_have_grown",
    ),
    "sync/test_faults.py": (
        "test_a_run_that_is_overtaken_at_any_step_changes_no_row",
        "test_the_database_fails_at_any_step",
    ),
    "sync/test_many_rows.py": (
        "test_what_is_kept_of_rows_with_long_keys_fits_into_a_statement[to_database]",
    ),
    "sync/test_turned_watches.py": (
        "test_a_watch_that_turns_behind_a_killed_run_knows_what_a_write_has_set[public key]",
    ),
    "sync/test_unfinished_step.py": (
        "test_a_client_that_comes_behind_the_killed_run_counts",
        "test_a_client_that_takes_its_change_back_behind_the_killed_run_counts[every-json]",
        "test_a_deleted_row_belongs_to_the_part_of_a_range_in_which_its_key_lies",
        "test_a_write_behind_a_run_that_was_killed_at_any_step_stays[each-json-before]",
    ),
    "sync/test_watches.py": (
        "test_an_unwatch_that_dies_at_any_step_is_finished_by_the_next_one[before-every row]",
    ),
}


def is_long(path: str, name: str) -> bool:
    """`path`: from tests/ on. `name`: with the case in brackets."""
    return any(
        name == listed or name.startswith(f"{listed}[") or _matches(listed, name)
        for listed in LONG.get(path, ())
    )


def _matches(listed: str, name: str) -> bool:
    """Whether it does, with any text for each `*`."""
    pieces = map(re.escape, listed.split("*"))
    return "*" in listed and re.fullmatch(".*".join(pieces), name) is not None
