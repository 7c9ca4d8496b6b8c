import torch

from mnist_imbalance.tensorboard import draw_confusion, lay_out


def test_the_confusion_matrix_shows_its_counts() -> None:
    counts = [[100 * row + column for column in range(10)] for row in range(10)]
    (axes,) = draw_confusion(counts).axes
    assert [text.get_text() for text in axes.texts] == [str(n) for row in counts for n in row]
    assert "true" in axes.get_ylabel().lower()
    assert "predicted" in axes.get_xlabel().lower()


def test_the_grid_has_a_row_a_label() -> None:
    images = torch.arange(8, dtype=torch.uint8).reshape(8, 1, 1, 1).expand(8, 1, 28, 28) * 10
    grid = lay_out(images, columns=4)
    assert grid.shape == (3, 2 * 114 + 2, 4 * 114 + 2)
    centres = grid[0, 58::114, 58::114]
    assert centres.flatten().tolist() == [10 * n for n in range(8)]
