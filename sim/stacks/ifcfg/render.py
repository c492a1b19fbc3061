def render(config):
    return {}
