"""Studies with real processes: orchestrator, sparsifier and a trainer without a framework."""

import csv
import io
import json
import sqlite3
from itertools import pairwise

import grpc
import psutil
import pytest
from support.limits import LONG_PATIENCE, PATIENCE
from support.orchestrator import Orchestrator, refused, tiny_items, until

from cellsparse_proto.v1 import common_pb2, dataset_pb2, orchestrator_pb2, sparsifier_pb2, study_pb2

SUCCEEDED, FAILED, CANCELLED = (
    study_pb2.MEMBER_STATE_SUCCEEDED,
    study_pb2.MEMBER_STATE_FAILED,
    study_pb2.MEMBER_STATE_CANCELLED,
)
WAITING, TRAINING = study_pb2.MEMBER_STATE_WAITING, study_pb2.MEMBER_STATE_TRAINING
FINAL = {study_pb2.STUDY_STATE_SUCCEEDED, study_pb2.STUDY_STATE_FAILED, study_pb2.STUDY_STATE_CANCELLED}
SLOW = study_pb2.StudyAxis(name="learning_rate", values=["0.9"])  # the fake backend sleeps 0.05 s in every step


def steps(number):
    return study_pb2.StudyAxis(name="steps", values=[str(number)])


def grid(*settings, k=(1, 0), **axes):
    """Modes MIN and MAX, labels of k cells and of all, no background: three label sets, as all cells have no mode."""
    return study_pb2.StudyGrid(
        modes=[sparsifier_pb2.SELECTION_MODE_MIN, sparsifier_pb2.SELECTION_MODE_MAX],
        backgrounds=[sparsifier_pb2.BACKGROUND_RULE_NONE],
        k=k,
        backends=["unet"],
        settings=settings,
        **axes,
    )


@pytest.fixture
def home(tmp_path):
    yield tmp_path / "home"
    # Nothing may outlive a test: neither services nor training processes of an orchestrator that was killed.
    for process in psutil.process_iter():
        try:
            if process.environ().get("CELLSPARSE_HOME") == str(tmp_path / "home"):
                process.kill()
        except psutil.Error:
            continue


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """An orchestrator for all tests that leave nothing under way; its later trainings need not load anything."""
    with Orchestrator(tmp_path_factory.mktemp("shared"), CELLSPARSE_WARM_SECONDS="600") as orchestrator:
        yield orchestrator


@pytest.fixture(scope="module")
def source(shared):
    return shared.upload()


def ended(orchestrator, study_id):
    return until(lambda: (study := orchestrator.study(study_id)).state in FINAL and study, LONG_PATIENCE)


def report(orchestrator, study_id):
    answer = orchestrator.studies.GetStudyReport(study_pb2.GetStudyReportRequest(study_id=study_id), timeout=PATIENCE)
    rows = list(csv.DictReader(io.StringIO(answer.members_csv.decode())))
    return json.loads(answer.report_json), rows, answer.complete


def all_runs(orchestrator):
    request = orchestrator_pb2.ListRunsRequest(page=common_pb2.PageRequest(page_size=1000))
    return list(orchestrator.runs.ListRuns(request, timeout=PATIENCE).runs)


def runs_of(orchestrator, study_id):
    members = {member.run_id for member in orchestrator.members(study_id)}
    return [run for run in all_runs(orchestrator) if run.id in members]


def test_members_share_label_sets_are_scored_and_reported(home, database_url):
    with Orchestrator(home, CELLSPARSE_SLOTS="2", CELLSPARSE_DATABASE_URL=database_url) as orchestrator:
        source = orchestrator.upload()
        study = orchestrator.begin_study(source.id, name="grid", grid=grid(steps(5)))
        assert (study.members, study.state) == (4, study_pb2.STUDY_STATE_RUNNING)
        answers = list(orchestrator.watch_study(study.id))
        assert answers[-1].study.state == study_pb2.STUDY_STATE_SUCCEEDED, answers[-1].study.message
        assert max(answer.study.training for answer in answers) <= 2
        last = {member.number: member for answer in answers for member in answer.members}
        assert [member.state for member in last.values()] == [SUCCEEDED] * 4
        members = orchestrator.members(study.id)
        assert members == [last[number] for number in sorted(last)]
        assert len({member.run_id for member in members}) == 4 == len(all_runs(orchestrator))
        label_sets = {member.dataset_id for member in members}
        assert len(label_sets) == 3
        listed = orchestrator.datasets.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=PATIENCE).datasets
        assert {dataset.id for dataset in listed} == label_sets | {source.id}
        by_k = {member.k: member.annotated_cells for member in members}
        assert by_k == {1: 2 * 2, 0: 2 * 4}  # 2 cells of each mode and image, or all 4; one image each in TRAIN and VAL
        assert all(member.training_seconds > 0 and member.peak_memory_mib > 10 for member in members)
        assert {member.device for member in members} == {"cpu"}
        document, rows, complete = report(orchestrator, study.id)
        assert complete
        assert [row["number"] for row in document["members"]] == [1, 2, 3, 4] == [int(row["number"]) for row in rows]
        assert all(len(row["scores"]) == 9 for row in document["members"])
        assert document["best"]["overall"]["model_id"] in {member.run_id for member in members}
        assert document["cost"]["label_sets"] == 3
        assert (orchestrator.store / "studies" / study.id / "report" / "members.csv").exists()
        orchestrator.studies.DeleteStudy(study_pb2.DeleteStudyRequest(study_id=study.id), timeout=PATIENCE)
        refusal = refused(orchestrator.studies.GetStudy, study_pb2.GetStudyRequest(study_id=study.id))
        assert study.id in refusal.message
        assert len(all_runs(orchestrator)) == 4


def test_an_orchestrator_killed_twice_starts_nothing_twice(home):
    request = {"request_id": "once", "name": "grid"}
    made = grid(steps(15), SLOW, k=[1, 2, 0])
    with Orchestrator(home, CELLSPARSE_SLOTS="2") as orchestrator:
        source = orchestrator.upload()
        study = orchestrator.begin_study(source.id, grid=made, **request)
        until(lambda: orchestrator.study(study.id).training)
        orchestrator.kill()
    with Orchestrator(home, CELLSPARSE_SLOTS="2") as orchestrator:
        assert orchestrator.begin_study(source.id, grid=made, **request).id == study.id
        until(lambda: orchestrator.study(study.id).succeeded >= 2, LONG_PATIENCE)
        orchestrator.kill()
    with Orchestrator(home, CELLSPARSE_SLOTS="2") as orchestrator:
        assert ended(orchestrator, study.id).succeeded == 6
        members = orchestrator.members(study.id)
        runs = [run.id for run in all_runs(orchestrator)]
        assert sorted(runs) == sorted({member.run_id for member in members})
        assert len(runs) == 6
        document, rows, complete = report(orchestrator, study.id)
        assert complete
        assert [row["state"] for row in rows] == ["succeeded"] * 6
        # What was taken up again equals what is made undisturbed: the first member trained when the first kill came.
        fresh = orchestrator.begin_study(source.id, grid=_first(made))
        assert ended(orchestrator, fresh.id).succeeded == 1
        undisturbed, _, _ = report(orchestrator, fresh.id)
        assert undisturbed["members"][0]["scores"] == document["members"][0]["scores"]
        assert undisturbed["members"][0]["dataset_id"] == document["members"][0]["dataset_id"]


def _first(made):
    """The grid of the first member alone."""
    first = study_pb2.StudyGrid()
    first.CopyFrom(made)
    del first.modes[1:], first.k[1:]
    return first


def test_a_failing_member_does_not_sink_the_study(shared, source):
    rates = study_pb2.StudyAxis(name="learning_rate", values=["0.1", "0.7"])  # 0.7 runs out of memory
    study = shared.begin_study(source.id, grid=grid(steps(12), rates, k=[1]))
    done = ended(shared, study.id)
    assert (done.state, done.succeeded, done.failed) == (study_pb2.STUDY_STATE_SUCCEEDED, 2, 2)
    failed = [member for member in shared.members(study.id) if member.state == FAILED]
    assert {member.settings["learning_rate"] for member in failed} == {"0.7"}
    assert {member.reason for member in failed} == {common_pb2.FAILURE_REASON_OUT_OF_MEMORY}
    document, rows, _ = report(shared, study.id)
    assert [row["reason"] for row in rows] == ["", "out_of_memory"] * 2
    assert document["best"]["overall"]["settings"]["learning_rate"] == "0.1"


def test_a_study_without_any_result_has_failed(shared, source):
    rate = study_pb2.StudyAxis(name="learning_rate", values=["0.7"])
    study = shared.begin_study(source.id, grid=grid(steps(12), rate, k=[1]))
    done = ended(shared, study.id)
    assert (done.state, done.failed) == (study_pb2.STUDY_STATE_FAILED, 2)
    document, rows, complete = report(shared, study.id)
    assert complete
    assert document["best"]["overall"] is None
    assert len(rows) == 2


def test_pause_lets_nothing_start_and_resume_goes_on(shared, source):
    study = shared.begin_study(source.id, grid=grid(steps(20), SLOW))
    until(lambda: shared.study(study.id).training)
    request = study_pb2.PauseStudyRequest(study_id=study.id)
    assert shared.studies.PauseStudy(request, timeout=PATIENCE).study.state == study_pb2.STUDY_STATE_PAUSED
    paused = until(lambda: (found := shared.study(study.id)).succeeded == 1 and found)
    assert (paused.state, paused.training, paused.waiting) == (study_pb2.STUDY_STATE_PAUSED, 0, 3)
    # A single run does not wait for a paused study.
    single = shared.train(paused.dataset_id, steps=3)
    until(lambda: shared.run(single.id).state == common_pb2.RUN_STATE_SUCCEEDED)
    assert shared.study(study.id).waiting == 3
    request = study_pb2.ResumeStudyRequest(study_id=study.id)
    assert shared.studies.ResumeStudy(request, timeout=PATIENCE).study.state == study_pb2.STUDY_STATE_RUNNING
    assert ended(shared, study.id).succeeded == 4


def test_cancel_ends_what_trains_and_what_waits(shared, source):
    study = shared.begin_study(source.id, grid=grid(steps(5000), SLOW))
    until(lambda: any(run.state == common_pb2.RUN_STATE_RUNNING for run in runs_of(shared, study.id)))
    refusal = refused(shared.datasets.DeleteDataset, dataset_pb2.DeleteDatasetRequest(dataset_id=source.id))
    assert study.id in refusal.message
    refusal = refused(shared.studies.DeleteStudy, study_pb2.DeleteStudyRequest(study_id=study.id))
    assert "has not ended" in refusal.message
    request = study_pb2.CancelStudyRequest(study_id=study.id)
    shared.studies.CancelStudy(request, timeout=PATIENCE)
    done = ended(shared, study.id)
    assert (done.state, done.cancelled) == (study_pb2.STUDY_STATE_CANCELLED, 4)
    assert [run.state for run in runs_of(shared, study.id)] == [common_pb2.RUN_STATE_CANCELLED]
    _, rows, complete = report(shared, study.id)
    assert complete
    assert [row["state"] for row in rows] == ["cancelled"] * 4
    assert shared.studies.CancelStudy(request, timeout=PATIENCE).study.state == study_pb2.STUDY_STATE_CANCELLED


def test_a_single_run_waits_for_one_member_not_for_the_study(shared, source):
    study = shared.begin_study(source.id, grid=grid(steps(10), SLOW, seeds=[0, 1]))
    until(lambda: shared.study(study.id).training)
    single = shared.train(source.id, steps=3)
    assert shared.run(single.id).queue_position <= 2
    until(lambda: shared.run(single.id).state == common_pb2.RUN_STATE_SUCCEEDED)
    assert shared.study(study.id).waiting >= 4
    shared.studies.CancelStudy(study_pb2.CancelStudyRequest(study_id=study.id), timeout=PATIENCE)
    assert ended(shared, study.id).state == study_pb2.STUDY_STATE_CANCELLED


WRONG = [
    (grid(study_pb2.StudyAxis(name="stepz", values=["3"])), "no setting 'stepz'"),
    (grid(study_pb2.StudyAxis(name="steps", values=["0"])), "steps is 0; allowed"),
    (grid(study_pb2.StudyAxis(name="steps", values=["3", "3"])), "'3' twice"),
    (grid(study_pb2.StudyAxis(name="seed", values=["3"])), "axis of its own"),
    (grid(k=[4, 4]), "grid.k has 4 twice"),
    (grid(seeds=range(1000), k=range(256)), "more than 10,000 members"),
    (study_pb2.StudyGrid(), "grid.backends is empty"),
    (study_pb2.StudyGrid(backends=["unet"], k=[3]), "grid.modes is empty"),
    (study_pb2.StudyGrid(backends=["yolo"]), "backend is 'yolo'"),
    (study_pb2.StudyGrid(preset=study_pb2.STUDY_PRESET_PAPER), "No cellpose trainer is configured"),
]


def test_members_hold_to_the_quota_of_their_project(home):
    def allow(runs):
        with sqlite3.connect(home / "cellsparse.db") as database:
            database.execute("INSERT OR REPLACE INTO project_limits (project_id, max_runs) VALUES ('pr-1', ?)", [runs])

    with Orchestrator(home, CELLSPARSE_SLOTS="3") as orchestrator:
        orchestrator.healthy("unet")
        source = orchestrator.upload()
        with sqlite3.connect(home / "cellsparse.db") as database:
            database.execute("UPDATE datasets SET project_id = 'pr-1'")
        allow(1)
        study = orchestrator.begin_study(source.id, grid=grid(steps(40), SLOW, k=[1]))
        allow(0)
        until(lambda: "is 0 runs at once" in orchestrator.study(study.id).message)
        assert len(runs_of(orchestrator, study.id)) < study.members
        allow(1)
        assert ended(orchestrator, study.id).succeeded == study.members
        runs = sorted(runs_of(orchestrator, study.id), key=lambda run: run.created_at.ToNanoseconds())
        for earlier, later in pairwise(runs):
            assert earlier.ended_at.ToNanoseconds() <= later.created_at.ToNanoseconds()


def test_what_cannot_be_is_refused_before_anything_is_kept(shared, source):
    before = shared.studies.ListStudies(study_pb2.ListStudiesRequest(), timeout=PATIENCE).studies
    for wrong, sentence in WRONG:
        request = study_pb2.CreateStudyRequest(dataset_id=source.id, grid=wrong)
        assert sentence in refused(shared.studies.CreateStudy, request).message
    request = study_pb2.CreateStudyRequest(dataset_id=source.id, grid=grid(), split=common_pb2.SPLIT_TRAIN)
    assert "SPLIT_VAL, SPLIT_TEST" in refused(shared.studies.CreateStudy, request).message
    only_train = shared.upload(list(tiny_items(1)))
    request = study_pb2.CreateStudyRequest(dataset_id=only_train.id, grid=grid())
    assert "no item of SPLIT_TEST" in refused(shared.studies.CreateStudy, request).message
    assert shared.studies.ListStudies(study_pb2.ListStudiesRequest(), timeout=PATIENCE).studies == before
    unknown = study_pb2.GetStudyRequest(study_id="study-0")
    with pytest.raises(grpc.RpcError) as caught:
        shared.studies.GetStudy(unknown, timeout=PATIENCE)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
