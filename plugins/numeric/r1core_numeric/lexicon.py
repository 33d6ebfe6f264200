"""The words and signs around numbers: currencies, scales, units, months, and words that make a number no quantity.

English, and the signs of accounting. `$` is read as USD and `¥` as JPY unless the configuration says otherwise.
"""

from __future__ import annotations

SYMBOLS = {
    "us$": "USD", "a$": "AUD", "c$": "CAD", "hk$": "HKD", "nz$": "NZD", "s$": "SGD", "r$": "BRL",
    "$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW",
}  # fmt: skip
CODES = frozenset(
    {
        *("USD", "EUR", "GBP", "JPY", "CNY", "CHF", "CAD", "AUD", "NZD", "HKD", "SGD", "SEK", "NOK", "DKK"),
        *("INR", "KRW", "BRL", "MXN", "ZAR", "PLN", "CZK", "HUF", "TRY", "ILS", "RMB"),
    }
)
CURRENCY_WORDS = {
    "dollar": "USD", "dollars": "USD", "euro": "EUR", "euros": "EUR", "pound": "GBP", "pounds": "GBP", "yen": "JPY",
    "rupee": "INR", "rupees": "INR", "yuan": "CNY", "francs": "CHF",
}  # fmt: skip
CURRENCIES = CODES | set(SYMBOLS.values()) | set(CURRENCY_WORDS.values())

SCALE_WORDS = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "milliard": 9, "lakh": 5, "crore": 7,
}  # fmt: skip
SCALE_WORDS |= {f"{word}s": power for word, power in SCALE_WORDS.items()}
SCALE_ABBREVIATIONS = {"bn": 9, "mn": 6, "mln": 6, "mio": 6, "mrd": 9, "tn": 12, "bln": 9}
SCALE_LETTERS = {"k": 3, "m": 6, "mm": 6, "b": 9, "t": 12}  # with a currency before, or glued (`k`, `m`, `b`)

PERCENT_WORDS = ("percentage points", "percentage point", "percent", "per cent", "pct")
BASIS_POINT_WORDS = ("basis points", "basis point", "bps", "bp")
MULTIPLE_WORDS = ("times", "x", "fold")
MEASURES = {
    "share": "share", "shares": "share", "year": "year", "years": "year", "month": "month", "months": "month",
    "week": "week", "weeks": "week", "day": "day", "days": "day", "hour": "hour", "hours": "hour",
}  # fmt: skip

MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october"),
    *("november", "december", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sept", "sep", "oct", "nov", "dec"),
)
VERBS = ("may", "march", "mar")  # months only with a capital letter

LABELS = (
    *("note", "notes", "item", "items", "section", "sections", "table", "tables", "page", "pages", "chapter"),
    *("article", "paragraph", "no", "nos", "level", "topic", "phase", "tier", "step", "part", "schedule", "exhibit"),
    *("figure", "appendix", "rule", "form", "asc", "asu", "ifrs", "ias", "sfas", "fas", "frs", "version", "clause"),
    *("footnote", "annex", "line", "row", "column", "question", "fy", "cy"),
)
"""Words behind which a number is a name: `Note 5`."""

NEGATIVE_WORDS = ("minus", "negative")

UNITS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18,
    "nineteen": 19, "zero": 0,
}  # fmt: skip
ONES = {"one": 1, "a": 1, "an": 1}  # numbers only before a scale or behind tens
TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
WORD_SCALES = {
    "hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12, "lakh": 5, "crore": 7,
}  # fmt: skip
DOZEN = 12
