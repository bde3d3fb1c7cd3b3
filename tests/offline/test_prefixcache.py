"""The prefix caches against cases computed by hand: one test a documented rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.offline.models import Gpt, gpt
from router.offline.prefixcache import PrefixCache, Use
from router.offline.prompt import Position

MIN = 1000
NEW, OLD = gpt("gpt-6.1-terra"), gpt("gpt-4o")


def prompt(*blocks: tuple[str, int] | tuple[str, int, str], kind: str = "text") -> list[Position]:
    """Positions from (content, tokens, TTL if it is a breakpoint); the key is all contents so far."""
    found: list[Position] = []
    for content, tokens, *ttl in blocks:
        key, before = (found[-1].key, found[-1].tokens) if found else ("", 0)
        found.append(Position(f"{key}/{content}", before + tokens, kind, ttl[0] if ttl else None))
    return found


def ask(cache: PrefixCache, positions: list[Position], now: float = 0, model: str = "m", min_tokens: int = MIN) -> Use:
    use = cache.use_anthropic(model, min_tokens, positions, now)
    cache.begin(use)
    return use


def spent(use: Use) -> tuple[int, int, int, int]:
    """(read, written short, written long, fresh)."""
    return use.read, use.write_short, use.write_long, use.fresh


class TestAnthropic:
    def test_nothing_is_cached_without_a_breakpoint(self) -> None:
        cache = PrefixCache()
        for _ in range(2):
            assert spent(ask(cache, prompt(("a", 5000), ("b", 10)))) == (0, 0, 0, 5010)

    def test_written_at_the_breakpoint_and_read_by_another_tail(self) -> None:
        cache = PrefixCache()
        assert spent(ask(cache, prompt(("a", 5000, "5m"), ("b", 10)))) == (0, 5000, 0, 10)
        assert spent(ask(cache, prompt(("a", 5000, "5m"), ("c", 20)))) == (5000, 0, 0, 20)

    def test_an_entry_is_only_where_a_breakpoint_was(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000), ("b", 10, "5m")))
        assert ask(cache, prompt(("a", 5000, "5m"), ("c", 10))).read == 0

    def test_reading_needs_a_breakpoint_too(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000, "5m"), ("b", 10)))
        assert spent(ask(cache, prompt(("a", 5000), ("b", 10)))) == (0, 0, 0, 5010)

    def test_a_conversation_reads_what_its_last_turn_wrote(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("system", 4000, "5m"), ("q1", 100, "5m")))
        use = ask(cache, prompt(("system", 4000, "5m"), ("q1", 100), ("a1", 300), ("q2", 50, "5m")))
        assert spent(use) == (4100, 350, 0, 0)

    def test_models_share_nothing(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000, "5m")), model="m")
        assert ask(cache, prompt(("a", 5000, "5m")), model="n").read == 0

    @pytest.mark.parametrize(("tokens", "written"), [(MIN - 1, 0), (MIN, MIN)])
    def test_below_the_minimum_silently_nothing(self, tokens: int, written: int) -> None:
        assert ask(PrefixCache(), prompt(("a", tokens, "5m"))).write_short == written

    def test_a_breakpoint_below_the_minimum_leaves_its_tokens_to_the_next(self) -> None:
        use = ask(PrefixCache(), prompt(("a", 400, "1h"), ("b", 1600, "5m"), ("c", 7)))
        assert spent(use) == (0, 2000, 0, 7)

    @pytest.mark.parametrize(("n_between", "read"), [(18, 5000), (19, 0)])
    def test_look_back_is_twenty_positions_with_itself(self, n_between: int, read: int) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000, "5m")))
        between = [(f"b{n}", 1) for n in range(n_between)]
        assert ask(cache, prompt(("a", 5000), *between, ("c", 1, "5m"))).read == read

    def test_each_breakpoint_looks_back_for_itself(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000, "5m")))
        steps = [(f"b{n}", 1) for n in range(15)]
        more = [(f"c{n}", 1) for n in range(15)]
        use = ask(cache, prompt(("a", 5000), *steps, ("m", 1, "5m"), *more, ("n", 1, "5m")))
        assert spent(use) == (5000, 32, 0, 0)

    @pytest.mark.parametrize("kind", ["tool_use", "tool_result"])
    def test_a_run_of_tool_blocks_is_one_position(self, kind: str) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000, "5m")))

        def then(kinds: list[str]) -> list[Position]:
            positions = prompt(("a", 5000))
            for n, name in enumerate(kinds):
                ttl = "5m" if n == len(kinds) - 1 else None
                positions.append(Position(f"{positions[-1].key}/{n}{name}", positions[-1].tokens + 1, name, ttl))
            return positions

        assert cache.use_anthropic("m", MIN, then([kind] * 40), 0).read == 5000
        assert cache.use_anthropic("m", MIN, then(["text"] * 40), 0).read == 0
        other = "tool_result" if kind == "tool_use" else "tool_use"
        loop = [kind, kind, other, other]  # two runs, so two positions
        assert cache.use_anthropic("m", MIN, then(loop * 9), 0).read == 5000
        assert cache.use_anthropic("m", MIN, then(loop * 10), 0).read == 0

    def test_an_entry_inside_a_run_is_found(self) -> None:
        cache = PrefixCache()
        run = prompt(("a", 5000), ("b", 1, "5m"), kind="tool_result")
        ask(cache, run)
        ask_again = prompt(("a", 5000), ("b", 1), ("c", 1), ("d", 1, "5m"), kind="tool_result")
        assert ask(cache, ask_again).read == 5001

    def test_mixed_lifetimes_are_billed_up_to_a_b_and_c(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 1000, "1h")))
        use = ask(cache, prompt(("a", 1000, "1h"), ("b", 200, "1h"), ("c", 30, "5m"), ("d", 4, "5m"), ("e", 5)))
        assert spent(use) == (1000, 34, 200, 5)

    def test_five_minutes_from_the_request_start_refreshed_by_reads(self) -> None:
        cache = PrefixCache()
        asked = prompt(("a", 5000, "5m"))
        assert [ask(cache, asked, now).read for now in (0, 299, 598, 897.5, 1198)] == [0, 5000, 5000, 5000, 0]

    def test_an_hour(self) -> None:
        cache = PrefixCache()
        asked = prompt(("a", 5000, "1h"))
        assert [ask(cache, asked, now).read for now in (0, 3599, 7198, 10798)] == [0, 5000, 5000, 0]

    def test_a_read_through_a_short_breakpoint_keeps_the_entrys_own_hour(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000, "1h")), 0)
        assert [ask(cache, prompt(("a", 5000, "5m")), now).read for now in (3000, 6000)] == [5000, 5000]

    def test_an_entry_is_readable_once_the_response_has_begun_and_expires_from_its_start(self) -> None:
        cache = PrefixCache()
        asked = prompt(("a", 5000, "5m"))
        first = cache.use_anthropic("m", MIN, asked, 0)
        second = cache.use_anthropic("m", MIN, asked, 1)
        assert (first.write_short, second.write_short) == (5000, 5000)  # in parallel both pay
        cache.begin(first)  # 200 s later, say: it does not matter
        assert cache.use_anthropic("m", MIN, asked, 299).read == 5000
        cold = PrefixCache()
        cold.begin(first)
        assert cold.use_anthropic("m", MIN, asked, 301).read == 0

    def test_clear(self) -> None:
        cache = PrefixCache()
        ask(cache, prompt(("a", 5000, "5m")))
        cache.clear()
        assert ask(cache, prompt(("a", 5000, "5m"))).read == 0


def say(
    cache: PrefixCache, positions: list[Position], now: float = 0, model: Gpt = NEW, implicit: str | None = "30m"
) -> Use:
    use = cache.use_openai("m", model, positions, now, implicit)
    cache.begin(use)
    return use


class TestOpenAI:
    def test_older_models_read_128_at_a_time_and_write_for_nothing(self) -> None:
        cache = PrefixCache()
        assert spent(say(cache, prompt(("a", 3000), ("b", 10)), model=OLD)) == (0, 0, 0, 3010)
        assert spent(say(cache, prompt(("a", 3000), ("c", 10)), model=OLD)) == (2944, 0, 0, 66)
        assert say(cache, prompt(("a", 3000), ("c", 10)), 301, OLD).read == 0

    def test_older_models_minimum(self) -> None:
        cache = PrefixCache()
        for _ in range(2):
            assert say(cache, prompt(("a", 2047)), model=OLD).read == 0
        say(cache, prompt(("a", 2048)), model=OLD)
        assert say(cache, prompt(("a", 2048)), model=OLD).read == 2048

    def test_implicitly_the_end_of_the_prompt_is_written_and_found_by_the_next_turn(self) -> None:
        cache = PrefixCache()
        assert spent(say(cache, prompt(("s", 2000), ("q1", 10)))) == (0, 2010, 0, 0)
        assert spent(say(cache, prompt(("s", 2000), ("q1", 10), ("a1", 5), ("q2", 6)))) == (2010, 11, 0, 0)

    def test_an_unmarked_shorter_prefix_is_not_found(self) -> None:
        cache = PrefixCache()
        say(cache, prompt(("s", 2000), ("q1", 10)))
        assert spent(say(cache, prompt(("s", 2000), ("q2", 20)))) == (0, 2020, 0, 0)

    def test_a_marked_prefix_is_found_by_another_question(self) -> None:
        cache = PrefixCache()
        say(cache, prompt(("s", 2000, "30m"), ("q1", 10)))
        assert spent(say(cache, prompt(("s", 2000, "30m"), ("q2", 20)))) == (2000, 20, 0, 0)

    def test_the_minimum_of_newer_models(self) -> None:
        assert spent(say(PrefixCache(), prompt(("a", 1023)))) == (0, 0, 0, 1023)
        assert spent(say(PrefixCache(), prompt(("a", 1024)))) == (0, 1024, 0, 0)

    def test_explicit_mode_writes_at_breakpoints_alone(self) -> None:
        cache = PrefixCache()
        assert spent(say(cache, prompt(("s", 2000), ("q", 10)), implicit=None)) == (0, 0, 0, 2010)
        assert spent(say(cache, prompt(("s", 2000, "30m"), ("q", 10)), implicit=None)) == (0, 2000, 0, 10)
        assert spent(say(cache, prompt(("s", 2000, "30m"), ("r", 10)), implicit=None)) == (2000, 0, 0, 10)

    @pytest.mark.parametrize(("implicit", "first_written"), [("30m", 2), (None, 1)])
    def test_four_writes_at_most_the_latest(self, implicit: str | None, first_written: int) -> None:
        cache = PrefixCache()
        marks = [(f"b{n}", 2000, "30m") for n in range(5)]
        say(cache, prompt(*marks, ("q", 1)), implicit=implicit)
        read = [say(cache, prompt(*marks[: n + 1]), implicit=None).read > 2000 * n for n in range(5)]
        # Asking writes what was missing, so each is asked of what came before alone.
        assert read == [n >= first_written for n in range(5)]

    def test_both_lifetimes(self) -> None:
        cache = PrefixCache()
        asked = prompt(("s", 2000, "12h"), ("t", 300, "30m"), ("q", 10))
        assert spent(say(cache, asked)) == (0, 310, 2000, 0)
        assert spent(say(cache, asked, 1801)) == (2000, 310, 0, 0)

    def test_the_latest_eighty_breakpoints_are_matched(self) -> None:
        for n_after, read in ((79, 2000), (80, 0)):
            cache = PrefixCache()
            say(cache, prompt(("s", 2000, "30m")), implicit=None)
            later = [(f"b{n}", 1, "30m") for n in range(n_after)]
            assert say(cache, prompt(("s", 2000, "30m"), *later), implicit=None).read == read

    def test_no_look_back_limit_over_unmarked_parts(self) -> None:
        cache = PrefixCache()
        say(cache, prompt(("s", 2000, "30m")), implicit=None)
        between = [(f"b{n}", 1) for n in range(200)]
        assert say(cache, prompt(("s", 2000, "30m"), *between), implicit=None).read == 2000

    def test_no_implicit_breakpoint_on_what_the_assistant_said(self) -> None:
        asked = prompt(("s", 2000), ("q", 10))
        last = Position("/s/q/a", 2030, "text", ends_message=False)
        assert spent(say(PrefixCache(), [*asked, last])) == (0, 2010, 0, 20)


PIECES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 900)), min_size=1, max_size=30)
MARKS = st.dictionaries(st.integers(0, 29), st.sampled_from(["5m", "1h"]), max_size=4)


@given(st.lists(st.tuples(PIECES, MARKS, st.integers(0, 4000)), min_size=1, max_size=6))
def test_parts_sum_to_the_prompt_and_sent_again_all_that_can_be_is_read(
    asked: list[tuple[list[tuple[str, int]], dict[int, str], int]],
) -> None:
    caches = {"anthropic": PrefixCache(), "newer": PrefixCache(), "explicit": PrefixCache(), "older": PrefixCache()}
    now = 0
    for pieces, marks, pause in asked:
        now += pause
        positions = prompt(*((f"{c}{n}", n, *([marks[i]] if i in marks else [])) for i, (c, n) in enumerate(pieces)))
        runs = {
            "anthropic": lambda now, p=positions: ask(caches["anthropic"], p, now),
            "newer": lambda now, p=positions: say(caches["newer"], p, now),
            "explicit": lambda now, p=positions: say(caches["explicit"], p, now, implicit=None),
            "older": lambda now, p=positions: say(caches["older"], p, now, OLD),
        }
        for name, run in runs.items():
            use, again = run(now), run(now)
            for one in (use, again):
                assert min(spent(one)) >= 0
                assert sum(spent(one)) == positions[-1].tokens
            assert again.write_short == again.write_long == 0
            if name != "older":
                assert again.read == use.read + use.write_short + use.write_long
