"""The prompters whose weights a user brought."""

import logging

from cellsparse_gateway.calls import Orchestrator
from cellsparse_gateway.prompts.choose import Prompters
from cellsparse_gateway.prompts.onnx_sam import OnnxSam, read_onnx
from cellsparse_gateway.prompts.stored import StoredPrompters
from cellsparse_gateway.prompts.types import Prompter
from cellsparse_gateway.prompts.weight_cache import WeightCache
from cellsparse_gateway.settings import GatewaySettings

_LOG = logging.getLogger(__name__)


def own_prompters(settings: GatewaySettings) -> list[Prompter]:
    """Return the prompters that the settings name, tested.

    Raises:
        InvalidArgument: A file cannot be read or is not what it should be, or ONNX Runtime is not installed.
    """
    if settings.sam_encoder is None or settings.sam_decoder is None:
        return []
    prompter = OnnxSam(read_onnx(settings.sam_encoder), read_onnx(settings.sam_decoder), settings.sam_licence)
    _LOG.info("prompter %s: %s, licence %s", prompter.name, settings.sam_encoder.name, prompter.licence)
    return [prompter]


def stored_prompters(settings: GatewaySettings, orchestrator: Orchestrator) -> StoredPrompters:
    """Return the prompters of the orchestrator's store."""
    folder = settings.weights_folder or settings.home / "weights"
    return StoredPrompters(orchestrator, WeightCache(orchestrator, folder, settings.weights_mib * 2**20))


def all_prompters(settings: GatewaySettings, stored: StoredPrompters) -> Prompters:
    """Return all prompters.

    Raises:
        InvalidArgument: See `own_prompters`.
    """
    return Prompters(own_prompters(settings), stored.all)
