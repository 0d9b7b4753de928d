"""instant-ngp's inner loop with everything on the device: for backends where a tensor of torch's is copied at every launch."""
