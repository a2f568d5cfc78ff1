import torch

from evaluation.scores import mean_depth_error, psnr


def test_psnr_by_hand_and_masked():
    truth = torch.zeros(2, 3, 2, 2)
    prediction = truth.clone()
    prediction[:, :, 0, 0] = 0.1
    torch.testing.assert_close(
        psnr(prediction, truth), torch.full((2,), 26.0206), rtol=1e-5, atol=0
    )
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    mask[:, 0, 0] = True
    torch.testing.assert_close(psnr(prediction, truth, mask), torch.full((2,), 20.0))
    assert psnr(prediction, truth, torch.zeros_like(mask)).isnan().all()


def test_depth_error_counts_known_depth_only():
    truth = torch.tensor([[[0.0, 2.0], [4.0, 0.0]]])
    prediction = torch.tensor([[[9.0, 2.5], [3.0, 9.0]]])
    torch.testing.assert_close(mean_depth_error(prediction, truth), torch.tensor([0.75]))
    assert mean_depth_error(prediction, torch.zeros(1, 2, 2)).isnan().all()
