from cellsparse_trainer.processes.environment import DEFAULTS, prepare


def test_what_the_environment_says_stays():
    environment = {"GOMP_SPINCOUNT": "7", "HOME": "/root"}
    prepare(environment)
    assert environment == {**DEFAULTS, "GOMP_SPINCOUNT": "7", "HOME": "/root"}
