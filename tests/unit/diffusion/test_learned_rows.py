"""Tables of which each image trains a row, against AdamW over the whole table."""

import pytest
import torch

from augbench.diffusion.learned_rows import LearnedRows

ROWS, SHAPE = 12, (3, 16)
BATCHES = [
    [0, 1, 5],
    [1, 1, 2],
    [5],
    [2],
    [2],
    [2, 7],
    [7],
    [1],
    [1],
    [0, 9],
    [9, 9, 9],
    [2],
]  # 3, 4, ... are never read


def start(repeats=1):
    return torch.randn((ROWS // repeats, *SHAPE), generator=torch.Generator().manual_seed(1))


def loss_of(rows, step):
    """Of any values: gradients of each sign, some much larger than others."""
    weights = torch.randn(rows.shape, generator=torch.Generator().manual_seed(step))
    return (weights.exp() * (rows - weights) ** 2).sum()


def dense(batches, rate=0.05):
    """The table by torch's AdamW over all of it."""
    table = torch.nn.Parameter(start())
    optimizer = torch.optim.AdamW([table], lr=rate, weight_decay=0.0, fused=True)
    for step, numbers in enumerate(batches):
        loss_of(table[torch.tensor(numbers)], step).backward()
        optimizer.step()
        optimizer.zero_grad()
    return table.detach()


def trained(rows, batches, first=0):
    for step, numbers in enumerate(batches, first):
        numbers = torch.tensor(numbers)
        rows.begin(numbers)
        loss_of(rows[numbers], step).backward()
        rows.step()
        rows.end()
    return rows


def new(repeats=1, rate=0.05):
    rows = LearnedRows(start(repeats), repeats)
    rows.learning_rate = rate
    return rows


def test_the_results_are_those_of_adamw_over_the_whole_table_bit_by_bit():
    rows = trained(new(), BATCHES)
    assert not torch.equal(rows.table, dense(BATCHES))  # rows whose steps are yet to be made
    assert torch.equal(rows.whole(), dense(BATCHES))
    assert torch.equal(rows.whole()[3], start()[3])


def test_looking_at_the_whole_table_in_between_changes_nothing():
    rows = new()
    for step, numbers in enumerate(BATCHES):
        trained(rows, [numbers], step)
        rows.whole()
    assert torch.equal(rows.whole(), dense(BATCHES))


@pytest.mark.parametrize("cut", [1, 6, 11])
def test_a_state_goes_on_to_the_same_bits(cut):
    state = trained(new(), BATCHES[:cut]).state()
    state = {name: value.clone() for name, value in state.items()}
    other = new()
    other.restore(state)
    assert torch.equal(trained(other, BATCHES[cut:], cut).whole(), dense(BATCHES))


def test_a_step_that_is_left_out_leaves_no_trace():
    rows = trained(new(), BATCHES[:4])
    rows.begin(torch.tensor([0, 8]))
    (rows[torch.tensor([0, 8])] * float("nan")).sum().backward()
    rows.end()
    assert torch.equal(trained(rows, BATCHES[4:], 4).whole(), dense(BATCHES))


def test_long_gaps_are_made_up_for_step_by_step():
    batches = [[0, 1]] + [[2]] * 400 + [[0], [1]]
    assert torch.equal(trained(new(), batches).whole(), dense(batches))


def test_the_rows_of_a_start_are_repeated_and_read_by_their_numbers():
    rows = new(repeats=3)
    assert torch.equal(rows.whole(), start(3).repeat_interleave(3, 0))
    rows.begin(torch.tensor([7, 2, 7]))
    assert torch.equal(rows[torch.tensor([7, 2])].detach(), start(3)[[2, 0]])


@pytest.mark.parametrize("processes", [2, 5])
def test_each_of_several_processes_keeps_an_equal_part(monkeypatch, processes):
    """Side by side in threads: sums over processes are real, and no process has more than its part."""
    import threading
    from types import SimpleNamespace

    from augbench.core import collectives

    local, barrier, shared = threading.local(), threading.Barrier(processes), {}

    def total(value):
        shared[local.process] = value.clone()
        barrier.wait()
        joined = sum(shared[process] for process in range(processes))
        barrier.wait()
        return value.copy_(joined)

    monkeypatch.setattr(collectives, "total", total)
    monkeypatch.setattr(collectives, "from_first", lambda value: value)
    monkeypatch.setattr(
        collectives, "group", lambda: SimpleNamespace(process_index=local.process, num_processes=processes)
    )
    results, sizes = {}, {}

    def work(process):
        local.process = process
        rows = trained(new(), BATCHES)
        sizes[process] = len(rows.table)
        results[process] = rows.whole()

    threads = [threading.Thread(target=work, args=(process,)) for process in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(sizes.values()) == ROWS
    assert max(sizes.values()) - min(sizes.values()) <= 1
    assert torch.equal(results[0], dense(BATCHES))
