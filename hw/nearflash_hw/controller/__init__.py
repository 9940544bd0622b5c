"""The SSD controller: host interface (NVMe queue pairs, PRP, admin), flash translation layer, block I/O."""
