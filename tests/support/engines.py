"""Which tests say something about one engine only.

The other tests hold for both: `HEROCACHE_TEST_ENGINE=dataapi` runs them by way of the RDS Data API.
"""

# Tests by file that need a connection to MySQL; `*` is all of a file. The Data API has tests of its
# own for most of what these look at: tests/db/test_data_api*.py.
MYSQL_ONLY = {
    # They count statements and round trips on a connection.
    "rows/test_round_trips.py": "*",
    "handlers/test_contract.py": "test_every_spelling_of_false_leaves_the_cache_alone",
    "cache/test_topologies.py": (
        "test_a_large_batch_is_filled_and_read"
        " test_values_that_all_share_a_bucket_are_filled_and_read"
    ),
    # They stand between the app and the server, or stop a server of their own.
    "cache/test_both_down.py": "*",
    "cache/test_cache_down.py": (
        "test_a_read_without_redis_is_hardly_slower"
        " test_another_process_that_writes_meanwhile_waits_for_the_same_second"
        " test_the_first_write_without_redis_waits_until_nobody_reads_what_it_changed"
    ),
    "cache/test_failover.py": (
        "test_a_commit_whose_answer_is_lost_is_never_sent_again"
        " test_a_delete_of_rows_that_are_not_there_asks_the_writer"
        " test_a_read_that_meets_a_demoted_writer_goes_to_the_new_one"
        " test_a_read_that_misses_asks_the_writer_although_the_generation_is_known"
        " test_a_read_whose_connections_keep_breaking_is_a_503"
        " test_of_the_kept_connections_to_a_demoted_writer_only_one_is_tried"
        " test_the_list_of_all_rows_comes_from_the_new_writer"
        " test_a_write_that_meets_a_demoted_writer_goes_to_the_new_one_once"
        " test_a_write_whose_writer_is_demoted_before_its_commit_is_not_acknowledged"
    ),
    "cache/test_hint.py": "*",
    "cache/test_stampede.py": "*",
    "db/test_asleep.py": "*",
    "db/test_database_down.py": "*",
    "db/test_host_names.py": "*",
    "ingest/test_ingest_schema.py": (
        "test_a_user_without_the_right_to_make_a_temporary_table_is_told_so"
    ),
    "sync/test_public_keys_of_a_write.py": "test_a_write_of_a_watched_row_costs_no_trip_more",
    "sync/test_captured_changes.py": (
        "test_a_load_that_the_database_does_itself_is_not_recorded"
        " test_a_user_who_may_not_see_triggers_is_told_so"
    ),
    "ingest/test_load_from_s3.py": "*",
    "ingest/test_hostile_uploads.py": "test_an_object_key_cannot_forge_a_line_of_the_log",
    "ingest/test_ingest_faults.py": (
        "test_a_database_gone_mid_file_leaves_nothing_half_loaded"
        " test_a_file_made_to_hurt_is_refused_in_constant_memory"
        " test_a_server_that_takes_no_files_says_what_to_set"
    ),
    "rows/test_idempotency_faults.py": (
        "test_a_retry_after_a_lost_answer_gets_it"
        " test_a_write_that_fails_leaves_no_claim"
        " test_no_error_of_the_second_try_hides_that_the_first_one_may_have_happened"
        " test_what_a_retry_acknowledges_every_reader_sees"
    ),
    # They put a fault into a method of the connection.
    "cache/test_races.py": (
        "test_a_bug_while_the_commit_is_under_way_is_no_failure_that_seems_certain "
        "test_a_commit_is_told_as_of_the_latest_time_at_which_it_may_have_been"
        " test_a_commit_that_the_network_holds_back_for_long_is_refused"
        " test_a_lookup_with_long_other_rows_is_not_read_whole_for_a_write"
        " test_a_rejected_write_whose_fences_come_late_does_not_bring_back_what_it_read"
        " test_a_write_that_slept_behind_its_fences_is_not_committed"
        " test_a_write_that_the_database_holds_up_behind_its_fences_is_not_committed"
        " test_a_write_that_was_undone_leaves_its_rows_in_the_cache_as_they_were"
        " test_a_write_waits_until_redis_has_published_it"
        " test_a_write_whose_commit_is_answered_with_an_error_is_not_done_again"
        " test_a_write_with_an_unknown_outcome_that_slept_lets_nobody_believe_an_entry"
        " test_a_write_with_an_unknown_outcome_whose_fences_fail_lets_nobody_believe_an_entry"
        " test_each_try_of_a_write_has_fences_of_its_own"
        " test_nobody_believes_what_a_writer_changed_that_died_behind_its_commit"
        " test_what_cannot_be_read_of_the_answer_to_a_commit_does_not_undo_it"
    ),
    "ingest/test_ingest_once.py": (
        "test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next"
        " test_a_lost_answer_to_the_commit_is_an_error_and_the_next_delivery_finds_out"
        " test_what_a_second_delivery_acknowledges_every_reader_sees"
        " test_what_a_second_delivery_skips_every_reader_sees"
    ),
    # Over the Data API many rows that follow their public keys are not written at once, and a
    # statement comes with those that open and end its transaction.
    "sync/test_fan_out.py": (
        "test_few_rows_cost_one_statement_more_where_ranges_can_be_handed_out"
        " test_what_follows_rows_that_another_range_changes_behind_it_is_left_to_the_next_run"
    ),
    # A connection sets a variable that the server's own value must not decide. The Data API keeps
    # that of the cluster's parameter group.
    "rows/test_write.py": (
        "test_no_setting_of_the_server_changes_what_is_read_and_written"
        " test_a_batch_that_is_longer_than_the_server_takes_is_told_so"
    ),
    # The Data API tells no SQLSTATE.
    "db/test_rejected_values.py": "test_the_number_that_a_trigger_chooses_means_nothing",
    # A user, a password, a host or a replica that the settings name.
    "db/test_driver.py": "*",
    "db/test_replica.py": "*",
    "db/test_rights.py": "*",
    "handlers/test_health.py": (
        "test_a_missing_setting_is_named"
        " test_a_port_where_nothing_listens_is_named"
        " test_a_server_that_does_not_answer_is_named"
        " test_a_wrong_database_password_is_named"
        " test_an_unknown_host_is_named"
        " test_both_servers_can_be_down"
        " test_deep_health_asks_each_server_little"
    ),
    "handlers/test_settings.py": (
        "test_a_database_that_lets_nobody_in_is_a_503_that_shows_nothing"
        " test_a_missing_or_malformed_setting_is_named"
    ),
    "infra/test_package.py": "test_the_api_answers_a_write_and_a_read",
    "infra/test_policies.py": (
        "test_the_databases_secret_is_read_with_the_right_that_configure_gives"
    ),
    # The driver tells a date from a text; the Data API gives both as text.
    "db/test_schema.py": "test_a_table_that_changes_while_it_is_used_is_told_too",
}
# In the name of a case: the database reads the file itself, over a connection.
MYSQL_ONLY_CASE = "aurora"


def is_mysql_only(path: str, name: str) -> bool:
    """`path`: from tests/ on. `name`: with the case in brackets."""
    function, _, case = name.partition("[")
    names = MYSQL_ONLY.get(path, "").split()
    return names == ["*"] or function in names or MYSQL_ONLY_CASE in case
