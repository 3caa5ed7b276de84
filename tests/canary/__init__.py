"""Which names of Flower we use, and do they and our tests hold on its newest release?"""
