"""Networks that find cells as a run begins with them: random, or with pretrained weights."""

from pathlib import Path

from hpa_kit.cells.networks import PUBLISHED_BACKBONE, CellNetworks, CellUnet, cell_network, load_networks
from hpa_kit.config import TrainSettings
from hpa_kit.errors import InputError
from hpa_kit.models.backbones import check_name, without_classifier
from hpa_kit.models.pretrained import load_backbone_weights


def build_cell_networks(settings: TrainSettings) -> CellNetworks:
    """Build both networks that settings describe.

    Pretrained weights are of both networks where they are a folder of such, else of the backbone, with which
    both encoders begin.

    Raises:
        InputError: the backbone is unknown or has no maps for a U-Net, or the weights do not fit it.
    """
    backbone, pretrained = settings.backbone, None if settings.warm_start is not None else settings.pretrained
    check_name(backbone)
    networks = CellNetworks(cell_network(backbone), cell_network(backbone), settings.size)
    if pretrained is None:
        return networks
    if isinstance(pretrained, Path) and pretrained.is_dir():
        return _with_networks(networks, pretrained, backbone)
    if backbone == PUBLISHED_BACKBONE:
        raise InputError(
            f"pretrained: with backbone {backbone} expected the folder of both published networks, found "
            f"{pretrained}; another backbone takes timm's weights"
        )
    for network in (networks.nuclei, networks.cells):
        assert isinstance(network, CellUnet)
        _load_encoder(network, backbone, str(pretrained))
    return networks


def _with_networks(networks: CellNetworks, folder: Path, backbone: str) -> CellNetworks:
    """Both networks with the weights of a folder, such as the published ones.

    Raises:
        InputError: they are missing, or of another backbone.
    """
    found = load_networks(folder)
    try:
        networks.load_state_dict(found.state_dict())
    except RuntimeError:
        raise InputError(
            f"pretrained: the networks in {folder} are not on backbone {backbone}; the published ones are on "
            f"{PUBLISHED_BACKBONE}"
        ) from None
    return networks


def _load_encoder(network: CellUnet, backbone: str, pretrained: str) -> None:
    """Put timm's weights into an encoder, which lacks the last layers and may call others by other names.

    Raises:
        InputError: they do not fit.
    """
    whole = without_classifier(backbone, in_chans=3)
    load_backbone_weights(whole, backbone, 3, pretrained)
    state = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    wanted = network.encoder.state_dict()
    found = {key: state.get(key.replace(".", "_")) for key in wanted}
    lacking = [key for key, value in found.items() if value is None or value.shape != wanted[key].shape]
    if lacking:
        raise InputError(f"pretrained: {pretrained} lacks weights of the encoder: {', '.join(lacking[:5])}")
    network.encoder.load_state_dict(found)
