"""Real Kubernetes nodes on this machine: kubelets with containerd, each in namespaces of its own, and the images."""
