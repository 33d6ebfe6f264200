"""What is read out of free text: medications, misspellings, classes, what is said of each, doses; and what is not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from r1core_clinical_rules.medications import Recogniser, other_drugs
from r1core_clinical_rules.orders import read_orders, unread
from r1core_clinical_rules.reading import load, read
from r1core_clinical_rules.units import quantity

from r1core.api import UserError

RULES = """\
version: 2
drugs:
  - {name: warfarin, brands: [Coumadin], classes: [anticoagulant]}
  - {name: aspirin, aliases: [ASA, acetylsalicylic acid], classes: [nsaid]}
  - {name: ibuprofen, brands: [Advil], classes: [nsaid]}
  - {name: mefenamic acid, classes: [nsaid]}
  - {name: isosorbide dinitrate, classes: [nitrate]}
  - {name: miconazole}
  - {name: sulfamethoxazole}
  - {name: hydralazine}
  - {name: co-trimoxazole}
classes:
  - {name: anticoagulant, aliases: [blood thinner]}
  - {name: nitrate, aliases: [long-acting nitrate]}
allergens: [{name: penicillin}]
rules: []
"""
OTHERS = "# others\nhydroxyzine\tatarax\ntrimethoprim/sulfamethoxazole\tbactrim\nwarfarin\tmarevan\n"


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Recogniser:
    folder = tmp_path_factory.mktemp("orders")
    (folder / "rules.yaml").write_text(RULES, encoding="utf-8")
    (folder / "names.txt").write_text(OTHERS, encoding="utf-8")
    return Recogniser(load([folder / "rules.yaml"]), other_drugs([folder / "names.txt"]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Take Coumadin.", [("Coumadin", "warfarin")]),
        ("ASA 81, WARFARIN", [("ASA", "aspirin"), ("WARFARIN", "warfarin")]),
        ("warfarin5mg", [("warfarin", "warfarin")]),
        ("acetylsalicylic  acid", [("acetylsalicylic  acid", "aspirin")]),
        (
            "cotrimoxazole or co-trimoxazole",
            [("cotrimoxazole", "co-trimoxazole"), ("co-trimoxazole", "co-trimoxazole")],
        ),
        ("a blood thinner and NSAIDs", [("blood thinner", "anticoagulant"), ("NSAIDs", "nsaid")]),
        ("miconazole nitrate cream", [("miconazole", "miconazole")]),
        ("a long-acting nitrate", [("long-acting nitrate", "nitrate")]),
        ("bactrim", [("bactrim", "trimethoprim/sulfamethoxazole")]),
        ("marevan", [("marevan", "warfarin")]),
        ("wárfarin ｗａｒｆａｒｉｎ", [("wárfarin", "warfarin"), ("ｗａｒｆａｒｉｎ", "warfarin")]),
        ("atarax", [("atarax", "hydroxyzine")]),
        ("The advice was to walk with aspiration and coma.", []),
        ("", []),
    ],
)
def test_listed_names(reads: Recogniser, text: str, found: list[tuple[str, str]]) -> None:
    mentions = reads.find(text)
    assert [(m.text, m.meaning.name) for m in mentions] == found
    assert all(m.certain and text[m.start : m.end] == m.text for m in mentions)


@pytest.mark.parametrize(
    ("text", "drug"),
    [
        ("start coumadn 5 mg", "warfarin"),
        ("warfrain", "warfarin"),
        ("takes advill", "ibuprofen"),
        ("avil 400 mg", "ibuprofen"),
        ("mefanamic acid", "mefenamic acid"),
        ("war farin", "warfarin"),
        ("acetylsalisylic acid", "aspirin"),
    ],
)
def test_misspellings_are_read_and_shown_as_uncertain(reads: Recogniser, text: str, drug: str) -> None:
    mention = reads.find(text)[0]
    assert mention.meaning.drugs == (drug,)
    assert not mention.certain
    assert str(mention).startswith(f"read {mention.text!r} as ")
    assert drug in str(mention)


def test_the_other_drug_is_nearer(reads: Recogniser) -> None:
    (found,) = reads.find("hydroxyzin 25 mg")  # one letter from hydroxyzine, which no rule knows
    assert found.meaning.drugs == ()
    assert found.meaning.name == "hydroxyzine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("warfarin 5 mg daily", "current"),
        ("not on warfarin", "denied"),
        ("She isn't taking warfarin.", "denied"),
        ("denies taking aspirin or using ibuprofen", "denied denied"),
        ("denies aspirin, warfarin 5 mg daily", "denied current"),
        ("no aspirin or other NSAIDs; takes warfarin", "denied denied current"),
        ("no bleeding on warfarin", "current"),
        ("stopped aspirin last year, warfarin 5 mg daily", "stopped current"),
        ("aspirin and ibuprofen were stopped in May. On warfarin.", "stopped stopped current"),
        ("warfarin stopped, started ibuprofen", "stopped current"),
        ("took advil two weeks ago", "stopped"),
        ("started warfarin two years ago", "current"),
        ("switched from warfarin to aspirin", "stopped current"),
        ("allergic to penicillin and aspirin; on Coumadin", "allergy allergy current"),
        ("aspirin allergy, takes warfarin", "allergy current"),
        ("Allergies: ASA (hives)\nMeds: warfarin", "allergy current"),
        ("Mother takes warfarin. He takes aspirin.", "family current"),
        ("wife reports he takes warfarin", "current"),
        ("On warfarin. Shall I give aspirin or ibuprofen?", "current considered considered"),
        ("consider ibuprofen", "considered"),
        ("never took aspirin but is on warfarin", "denied current"),
        ("avoid ibuprofen", "denied"),
        ("history of aspirin use", "stopped"),
        # a "not" or a refusal turns a stop round
        ("do not stop warfarin", "current"),
        ("refuses to come off warfarin", "current"),
        ("warfarin is not to be discontinued", "current"),
        ("denies missing doses of warfarin", "current"),
        ("cannot sleep without ibuprofen", "current"),
        ("not ready to start warfarin", "denied"),
        # a cue with a noun of its own says nothing of the medication
        ("avoid alcohol while on warfarin", "current"),
        ("quit smoking, takes aspirin", "current"),
        ("history of diabetes treated with aspirin", "current"),
        ("refused surgery, warfarin 5 mg daily", "current"),
        # what is said last counts
        ("warfarin held before surgery, restarted on Monday", "current"),
        ("was offered warfarin and declined", "denied"),
        ("aspirin prescribed but never filled", "denied"),
        ("hold warfarin if the INR is above 4", "current"),
        ("takes ibuprofen for headaches that stopped", "current"),
        # a switch has a direction
        ("substitute aspirin for warfarin", "current stopped"),
        ("swap aspirin for warfarin", "stopped current"),
        ("aspirin instead of warfarin", "current stopped"),
        ("warfarin was replaced by aspirin", "stopped current"),
        ("could consider switching aspirin to warfarin", "current current"),
        # shorthand, lists and other people
        ("warfarin d/c'd 2/2 bleed", "stopped"),
        ("d/c home on warfarin", "current"),
        ("NKDA except aspirin", "allergy"),
        ("NKDA, on aspirin", "current"),
        ("Allergies: penicillin [aspirin]; ibuprofen", "allergy allergy allergy"),
        ("Allergies: none; warfarin 5 mg daily", "current"),
        ("Prior meds: aspirin, ibuprofen", "stopped stopped"),
        ("stop NSAIDs such as aspirin or ibuprofen", "stopped stopped stopped"),
        ("lives with an aunt who takes warfarin", "family"),
        ("mother gives him warfarin", "current"),
        ("Lives with her husband, takes warfarin", "current"),
        ("If she were on warfarin we would wait", "hypothetical"),
        ("Discussed aspirin but deferred", "hypothetical"),
        ("wants to stop warfarin", "current"),
    ],
)
def test_what_is_said_of_a_medication(reads: Recogniser, text: str, said: str) -> None:
    assert " ".join(order.status for order in read_orders(reads, text)) == said


# What stands for each family of expressions: the sentences are of no benchmark.
@pytest.mark.parametrize(
    ("text", "said"),
    [
        # the cue is said of the medication before it, not of the next one
        ("warfarin avoided, so aspirin 81 mg chosen", "denied current"),
        ("The aspirin has been stopped and the warfarin 5 mg stays", "stopped current"),
        ("Controlled on warfarin 5 mg, not a candidate for aspirin", "current denied"),
        ("Where ibuprofen failed aspirin 81 mg has helped", "stopped current"),
        # exceptions
        ("Nil by way of tablets apart from warfarin", "current"),
        ("All her tablets were stopped except warfarin 5 mg", "current"),
        ("Stopped taking her ibuprofen but not warfarin 5 mg", "stopped current"),
        ("No known drug allergies except to aspirin", "allergy"),
        # conditions, the future, and what was undone
        ("Should she fall again, stop warfarin", "current"),
        ("She should perhaps stop warfarin", "stopped"),
        ("Find out if he has stopped warfarin", "stopped"),
        ("Nobody told him what warfarin 5 mg is for", "current"),
        ("No one knows why she is on warfarin", "current"),
        ("Without warfarin his leg would clot", "current"),
        ("Warfarin 5 mg, never with alcohol", "current"),
        ("Never has ibuprofen with breakfast or supper", "denied"),
        ("To stop warfarin 5 mg when the course ends", "current"),
        ("ibuprofen 400 mg for 5 days, then stop", "current"),
        ("Turned down warfarin at first but now wishes to start", "current"),
        ("warfarin was paused on admission and has since been restarted", "current"),
        ("If I do not have my aspirin I can not walk", "current"),
        ("Wants to avoid ibuprofen", "denied"),
        ("Would suggest stopping ibuprofen", "stopped"),
        ("Lost without her aspirin", "current"),
        ("Not taking warfarin 5 mg regularly, told to", "current"),
        ("Aspirin not needed today", "current"),
        # thought of, and rejected
        ("Asked about ibuprofen but told it would not suit him", "denied"),
        ("Wondered about warfarin; his falls preclude it", "denied"),
        ("Declines to change warfarin 5 mg to aspirin", "current denied"),
        ("Came in for ibuprofen, was sold aspirin 300 mg", "stopped current"),
        # one after the other, and what is written against what is taken
        ("At first ibuprofen, later aspirin 81 mg", "stopped current"),
        ("Ibuprofen until March, thereafter aspirin 81 mg", "stopped current"),
        ("Chart lists ibuprofen but he really takes aspirin 81 mg", "stopped current"),
        ("Ibuprofen given up in favour of aspirin 81 mg", "stopped current"),
        ("ibuprofen out, aspirin 81 mg in", "stopped current"),
        ("Changed from an NSAID to aspirin 81 mg", "stopped current"),
        # other people, their supplies, and who tells
        ("The ibuprofen in the cupboard is her son's", "family"),
        ("Grandad's warfarin is locked away", "family"),
        ("Wife rang for his warfarin 5 mg", "current"),
        # without a dose, the words about a medication count
        ("He chucked the aspirin", "stopped"),
        ("She packed ibuprofen in", "stopped"),
        ("No joy with ibuprofen", "stopped"),
        ("Ibuprofen 400 mg: no relief yet, continue", "current"),
        ("ibuprofen left her with hives", "allergy"),
        ("Had a rough time on aspirin", "stopped"),
        ("A leaflet about warfarin went home with her", "hypothetical"),
        ("Aspirin was a waste of money", "stopped"),
        ("The warfarin box is still unopened", "denied"),
        ("Isolate resistant to amoxicillin; screen negative for ibuprofen", "denied"),
        ("Brief spell on warfarin", "stopped"),
        ("ibuprofen -> wheeze", "allergy"),
        ("Warfarin (historical)", "stopped"),
        # and a word of taking outweighs them
        ("Despite an old ulcer he remains on aspirin", "current"),
        ("No hypoglycaemia with aspirin", "current"),
        ("Poor sleep, poor appetite; takes warfarin", "current"),
        ("Risks explained, warfarin started", "current"),
        ("History of clots, so on warfarin", "current"),
        ("Aspirin taken this morning", "current"),
        ("Aspirin does not help much yet", "current"),
        ("Meds: aspirin, warfarin, not taking ibuprofen", "current current denied"),
        ("AF, old DVT, warfarin, no bleeding", "current"),
        ("Once daily warfarin", "current"),
        # shorthand
        ("Tab. warfarin to continue", "current"),
        ("C/I: aspirin", "denied"),
        ("Seen by Dr. Lee; w/h warfarin", "stopped"),
    ],
)
def test_families_of_expressions(reads: Recogniser, text: str, said: str) -> None:
    assert " ".join(order.status for order in read_orders(reads, text)) == said


@pytest.mark.parametrize(
    ("text", "amount", "route", "frequency", "per_day"),
    [
        ("start coumadin 5 mg po daily", "5 mg", "PO", "daily", "5 mg"),
        ("Advil 400 mg t.i.d.", "400 mg", None, "t.i.d.", "1200 mg"),
        ("give 0.5 g of ibuprofen every 6 hours", "0.5 g", None, "every 6 hours", None),
        ("Advil 400 tid", None, None, "tid", None),
        ("ibuprofen", None, None, "", None),
    ],
)
def test_dose_route_and_frequency(
    reads: Recogniser, text: str, amount: str | None, route: str | None, frequency: str, per_day: str | None
) -> None:
    (order,) = read_orders(reads, text)
    assert (order.amount and order.amount.compare(quantity(amount or "1 mg"))) in (None, 0)
    assert (order.amount is None) == (amount is None)
    assert (order.route, order.frequency) == (route, frequency)
    if per_day:
        assert order.per_day is not None
        assert order.per_day.to("mg") == Decimal(per_day.split()[0])


def test_a_dose_belongs_to_the_medication_before_it(reads: Recogniser) -> None:
    orders = read_orders(reads, "ｗａｒｆａｒｉｎ 5 mg daily, ibuprofen 400 mg tid")
    assert [(o.dose, o.frequency) for o in orders] == [("5 mg", "daily"), ("400 mg", "tid")]


def test_a_list_of_names_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no readable list of drug names"):
        other_drugs([tmp_path / "absent.txt"])


def test_names_of_classes_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.replace("{name: nitrate, aliases: [long-acting nitrate]}", "{name: nitrite, aliases: [ab]}"))
    _, problems = read([path])
    assert ["'ab'" in p.found or "nitrite" in p.found for p in problems] == [True, True]
    assert all(f"{path}:1" in p.where and "class nitrite" in p.where for p in problems)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Start Xyzolam 5 mg daily, warfarin 5 mg.", ["Xyzolam"]),
        ("Takes xyzolam. Prescribed Brandomil by Dr. Reitman.", ["xyzolam", "Brandomil"]),
        ("coumadn 5 mg, hydroxyzine 25 mg", []),  # read, and known as another drug
        ("He walks 5 km with Reitman and takes breakfast.", []),
        ("İ takes xyzolam 5 mg", ["xyzolam"]),
        ("", []),
    ],
)
def test_words_in_the_place_of_a_drug_that_no_list_knows(reads: Recogniser, text: str, words: list[str]) -> None:
    found = unread(reads, text)
    assert [word.text for word in found] == words
    assert all(text[word.start : word.end] == word.text for word in found)
