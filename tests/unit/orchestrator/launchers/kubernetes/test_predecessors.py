"""An attempt waits for the ones before it."""

from cellsparse_orchestrator.launchers.kubernetes.cache import ObjectCache
from cellsparse_orchestrator.launchers.kubernetes.manifests import JobRequest
from cellsparse_orchestrator.launchers.kubernetes.predecessors import Predecessors
from cellsparse_orchestrator.launchers.kubernetes.projections import job_name_of, project_job, project_pod

THIRD = JobRequest(run_id="run-1", backend="unet", attempt=3)


def metadata(name, attempt, run="run-1"):
    labels = {"cellsparse.dev/run": run, "cellsparse.dev/attempt": str(attempt)}
    return {"name": name, "uid": name, "labels": labels, "creationTimestamp": "2026-11-22T10:00:00Z"}


def pod(attempt, phase, **status):
    return project_pod({"metadata": metadata(f"pod-{attempt}", attempt), "status": {"phase": phase, **status}})


def caches():
    return tuple(ObjectCache(job_name_of, lambda name: None) for _ in range(2))


def test_what_is_left_is_removed_and_waited_for():
    jobs, pods = caches()
    removed = []
    predecessors = Predecessors(jobs, pods, removed.append)
    assert predecessors.blocking(THIRD, 60) == 0
    jobs.put(project_job({"metadata": metadata("run-1-a2", 2)}))
    pods.put(pod(2, "Running"))
    assert predecessors.blocking(THIRD, 60) == 2
    assert removed == ["run-1-a2"]
    jobs.drop("run-1-a2")
    assert predecessors.blocking(THIRD, 60) == 2
    pods.put(pod(2, "Failed", reason="Evicted"))
    assert predecessors.blocking(THIRD, 60) == 0


def test_a_pod_of_a_lost_node_is_not_waited_for():
    jobs, pods = caches()
    gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}
    pods.put(pod(1, "Running", conditions=[gone]))
    assert Predecessors(jobs, pods, print).blocking(THIRD, 60) == 0


def test_patience_ends_and_other_runs_do_not_matter():
    jobs, pods = caches()
    pods.put(pod(1, "Running"))
    pods.put(project_pod({"metadata": metadata("other", 1, run="run-2"), "status": {"phase": "Running"}}))
    predecessors = Predecessors(jobs, pods, print)
    assert predecessors.blocking(THIRD, 0) == 0
    assert predecessors.blocking(JobRequest(run_id="run-3", backend="unet", attempt=2), 60) == 0
    assert predecessors.blocking(JobRequest(run_id="run-1", backend="unet", attempt=1), 60) == 0
    assert predecessors.blocking(JobRequest(run_id="run-1", backend="unet", attempt=2), 60) == 1
