"""templates/trainers.yaml: warm replicas."""

from support.helm import container, names, one, pod, render, variables

GPU = {"trainers": [{"backend": "unet", "warmGpu": True, "runtimeClass": "nvidia", "warmReplicas": 2}]}


def test_one_deployment_and_service_per_trainer():
    objects = render()
    for kind in ("Deployment", "Service"):
        assert {f"lab-cellsparse-{backend}" for backend in ("cellpose", "stardist", "unet")} <= set(
            names(objects, kind)
        )
    image = container(one(objects, "Deployment", "lab-cellsparse-stardist"))["image"]
    assert image == "ghcr.io/cellsparse/cellsparse-trainer-stardist:0.1.0"


def test_a_fourth_backend_needs_one_entry():
    deployment = one(
        render({"trainers": [{"backend": "mine", "image": "i"}, {"backend": "unet"}]}),
        "Deployment",
        "lab-cellsparse-mine",
    )
    assert container(deployment)["image"] == "i"
    assert variables(deployment)["CELLSPARSE_PORT"] == "50052"


def test_names_of_objects_have_dashes_where_backends_have_underscores():
    objects = render({"autoscaling": {"kind": "keda", "prometheus": "http://p"}})
    warm = one(objects, "Deployment", "lab-cellsparse-cellpose-sam")
    assert container(warm)["image"] == "ghcr.io/cellsparse/cellsparse-trainer-cellpose-sam:0.1.0"
    assert "lab-cellsparse-cellpose-sam" in names(objects, "Service")
    assert "lab-cellsparse-cellpose-sam" in names(objects, "ScaledObject")
    assert "lab-cellsparse-warm-cellpose-sam" in names(objects, "PodDisruptionBudget")
    orchestrator = variables(one(objects, "Deployment", "lab-cellsparse-orchestrator"))
    assert "cellpose_sam=lab-cellsparse-cellpose-sam.imaging.svc:50052" in orchestrator["CELLSPARSE_TRAINERS"]


def test_an_entry_wins_over_the_defaults_even_with_nothing():
    trainers = [{"backend": "cellpose", "warmGpu": False, "warmReplicas": 0}, {"backend": "unet", "tolerations": []}]
    defaults = {"warmGpu": True, "warmReplicas": 2, "tolerations": [{"operator": "Exists"}]}
    objects = render({"trainers": trainers, "trainerDefaults": defaults})
    assert "lab-cellsparse-cellpose" not in names(objects, "Deployment") + names(objects, "Service")
    unet = one(objects, "Deployment", "lab-cellsparse-unet")
    assert unet["spec"]["replicas"] == 2
    assert "tolerations" not in pod(unet)


def test_a_warm_replica_takes_a_gpu_only_if_asked():
    assert "nvidia.com/gpu" not in container(one(render(), "Deployment", "lab-cellsparse-unet"))["resources"]["limits"]
    warm = one(render(GPU), "Deployment", "lab-cellsparse-unet")
    assert container(warm)["resources"] == {
        "requests": {"cpu": "500m", "memory": "2Gi"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
    }
    assert pod(warm)["runtimeClassName"] == "nvidia"


def test_without_a_gpu_there_is_no_runtime_class():
    trainer = {**GPU["trainers"][0], "gpu": {"count": 0}}
    warm = one(render({"trainers": [trainer]}), "Deployment", "lab-cellsparse-unet")
    assert "runtimeClassName" not in pod(warm)
    assert list(container(warm)["resources"]["limits"]) == ["memory"]


def test_shared_memory_is_a_volume():
    warm = one(render({"trainerDefaults": {"sharedMemory": "3Gi"}}), "Deployment", "lab-cellsparse-unet")
    volume = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "3Gi"}}
    assert volume in pod(warm)["volumes"]
    assert {"name": "shared-memory", "mountPath": "/dev/shm"} in container(warm)["volumeMounts"]


def test_services_of_warm_replicas_do_not_find_training_pods():
    selector = one(render(), "Service", "lab-cellsparse-unet")["spec"]["selector"]
    assert selector["app.kubernetes.io/name"] == "warm-unet"
