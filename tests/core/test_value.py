"""A value is what its fields say, and nobody changes it."""

from dataclasses import replace

from mailgate.core.reply import Reply


def test_values_of_the_same_fields_are_the_same() -> None:
    assert {Reply(250, "2.0.0", "Ok"): 1}[Reply(250, "2.0.0", "Ok")] == 1
    assert replace(Reply(250, "2.0.0", "Ok"), text="taken") == Reply(250, "2.0.0", "taken")


def test_to_change_one_is_an_error_for_mypy() -> None:
    reply = Reply(250, "2.0.0", "Ok")
    reply.code = 251  # type: ignore[misc]  # mypy complains of this comment if it finds no error here
    assert reply != Reply(250, "2.0.0", "Ok")
