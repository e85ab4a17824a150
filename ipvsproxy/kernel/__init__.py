"""The adapters to the kernel: bytes, errno and nft's text, and no Kubernetes."""
