"""Must never be imported by this release."""

raise AssertionError("a plugin of the wrong API version was imported")
