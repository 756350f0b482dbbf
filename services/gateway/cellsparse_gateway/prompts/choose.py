"""Which prompter answers."""

from collections.abc import Sequence

from cellsparse_gateway.prompts.types import NOTHING, Prompt, Prompter, Proposal

AUTO = "auto"
METHODS = (AUTO, "model", "classical", "onnx-sam")


def propose(method: str, prompters: Sequence[Prompter], prompt: Prompt) -> tuple[list[Proposal], Prompter]:
    """Return the proposals of one prompter, and which.

    Args:
        method: A prompter's name, or `AUTO`: the first that finds something.
        prompters: Those that there are, the one to ask first leading.
        prompt: What was shown.

    Raises:
        ValueError: There is no such prompter.
    """
    asked = [prompter for prompter in prompters if method in (AUTO, prompter.name)]
    if not asked:
        names = ", ".join(prompter.name for prompter in prompters)
        raise ValueError(f"there is no prompter {method!r} here; there are {AUTO}, {names}")
    found: list[Proposal] = [NOTHING]
    for prompter in asked:
        found = prompter.propose(prompt)
        if any(proposal.mask.size for proposal in found):
            return found, prompter
    return found, asked[-1]
