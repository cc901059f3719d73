"""The networks by name, known without loading any."""

# Name -> the file of `experiments.models` that defines it, in the order in which they are listed.
MODEL_FILES = {
    "mlp": "small",
    "cnn": "small",
    "resnet8": "resnet",
    "resnet20": "resnet",
    "resnet32": "resnet",
    "resnet56": "resnet",
    "wrn16_8": "resnet",
    "wrn28_2": "resnet",
    "wrn28_10": "resnet",
    "resnext29_32x4d": "resnet",
    "densenet121": "densenet",
    "vgg19_bn": "vgg",
    "vit": "vit",
}
