"""Many runs in one program: vmap over runs, a loop over steps."""
