from cellsparse_trainer.processes.environment import DEFAULTS, prepare


def test_what_the_environment_says_stays():
    environment = {"GOMP_SPINCOUNT": "7", "HOME": "/root"}
    prepare(environment, {"GOMP_SPINCOUNT": "9"})
    assert environment == {**DEFAULTS, "GOMP_SPINCOUNT": "7", "HOME": "/root"}


def test_a_backends_own_variables_replace_the_defaults():
    environment: dict[str, str] = {}
    prepare(environment, {"GOMP_SPINCOUNT": "9"})
    assert environment == {**DEFAULTS, "GOMP_SPINCOUNT": "9"}
