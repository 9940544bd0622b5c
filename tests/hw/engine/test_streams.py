from nearflash_hw.engine.streams import clog2, low_bit


def test_powers_of_two():
    for v in range(1, 70):
        assert 1 << clog2(v) >= v > (1 << clog2(v)) // 2 or v == 1
        assert v % low_bit(v) == 0
        assert v // low_bit(v) % 2 == 1
