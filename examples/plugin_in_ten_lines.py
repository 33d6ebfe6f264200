from r1core import api


class Short:  # a quality gate: sets long records aside
    name = "plugin_in_ten_lines/short"

    def __call__(self, example):
        return "too long" if sum(len(m.content) for m in example.messages) > 2000 else None

    def fingerprint(self):
        return "2000"


@api.hookimpl
def quality_gate(ctx):
    return [Short()]
