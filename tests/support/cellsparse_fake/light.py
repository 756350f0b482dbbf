from support.cellsparse_fake.config import Config, resolve
from support.cellsparse_fake.initial_model import adopt

__all__ = ["Config", "adopt", "resolve"]
