"""The command that the chart gives its MinIO server, run with the real program: it makes the bucket."""

import os
import socket
import subprocess
import time

import pytest
import urllib3
from minio import Minio
from minio.error import MinioException
from support.helm import container, one, render
from support.limits import PATIENCE
from support.minio import find_minio


def test_the_server_starts_with_the_bucket(tmp_path):
    program = find_minio()
    server = container(one(render({"s3": {"bucket": "lab/cells"}}), "StatefulSet", "lab-cellsparse-minio"))
    command = [
        part.replace("/data", f"{tmp_path}/volume").replace("/run/minio", f"{tmp_path}/run")
        for part in server["command"]
    ]
    given = {variable["name"]: variable["value"] for variable in server["env"] if "value" in variable}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = {
        **given,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": "/nonexistent",
        "MINIO_ADDRESS": address,
        "MINIO_ROOT_USER": "access",
        "MINIO_ROOT_PASSWORD": "secret-key",
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        http = urllib3.PoolManager(timeout=2.0, retries=False)
        client = Minio(address, "access", "secret-key", secure=False, region="us-east-1", http_client=http)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                assert [bucket.name for bucket in client.list_buckets()] == ["lab"]
                break
            except (urllib3.exceptions.HTTPError, MinioException):
                if process.poll() is not None or time.monotonic() > end:
                    pytest.fail("the server does not answer")
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait(PATIENCE)
