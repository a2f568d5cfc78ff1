import torch

from utils.contact_sheets import Panel, contact_sheet, label_strip


def plain(height, width, *color):
    return torch.tensor(color)[:, None, None].expand(3, height, width)


def test_rows_are_aligned_in_columns():
    red, blue = Panel(plain(20, 40, 1.0, 0, 0)), Panel(plain(10, 40, 0, 0, 1.0))
    green = Panel(plain(20, 60, 0, 1.0, 0))
    sheet = contact_sheet([[red, None, green], [blue, blue]])
    # The middle column is as wide as its widest picture, the second row as high as its own.
    assert sheet.shape == (3, 20 + 3 + 10, 40 + 3 + 40 + 3 + 60)
    assert sheet[:, 5, 5].tolist() == [1, 0, 0] and sheet[:, 5, 100].tolist() == [0, 1, 0]
    assert sheet[:, 25, 5].tolist() == sheet[:, 25, 50].tolist() == [0, 0, 1]
    assert (sheet[:, :20, 40:86] == 1).all() and (sheet[:, 23:, 83:] == 1).all()


def test_labels_stand_above_and_shrink_to_fit():
    panel = Panel(plain(20, 60, 0.0, 0, 0), "view 12")
    sheet = contact_sheet([[panel, Panel(plain(20, 60, 0.0, 0, 0))]])
    assert sheet.shape[1] > 20 and (sheet[:, -20:, :60] == 0).all()
    assert (sheet[:, :-20, :60] < 0.5).any() and (sheet[:, :-20, 60:] == 1).all()
    for text in ("short", "much too long for sixty pixels"):
        ink = (label_strip(text, 160, 13) < 0.5).any(0).any(0).nonzero()
        assert ink.min() > 0 and ink.max() < 159 - 1
