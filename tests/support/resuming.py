"""A training that goes on from the state of another."""


def expect_to_learn_and_resume(make, falls_to: float) -> None:
    """The loss falls to that share of what it was, and a training from the state at step 20 goes on to the bit."""
    whole, second = make(), make()
    losses = [whole.step().loss for _ in range(20)]
    state = whole.state_dict(copied=True)
    losses += [whole.step().loss for _ in range(30)]
    assert sum(losses[-10:]) < falls_to * sum(losses[:10])
    second.load_state_dict(state)
    assert [second.step().loss for _ in range(5)] == losses[20:25]
