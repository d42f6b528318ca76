def write_page(out, page, compare=None):
    return page
