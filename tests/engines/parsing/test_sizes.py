from ltxrt.engines.parsing.sizes import nearest_sizes


def test_nearest_sizes_are_valid_and_enclose_the_value():
    for value in range(1, 200):
        for factor, offset in ((8, 1), (32, 0)):
            nearest = nearest_sizes(value, factor, offset)
            assert all(size > 0 and (size - offset) % factor == 0 for size in nearest)
            assert min(abs(size - value) for size in nearest) < factor
            assert (value in nearest) == ((value - offset) % factor == 0)
